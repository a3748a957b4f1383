package hosts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/child"
)

// stageEnv tells the program's later runs which they are.
const (
	stageEnv    = "REGENT_HOSTS"
	stageInit   = "init"
	stageInside = "inside"
)

// caps are what the program may do in its namespaces.
var caps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN}

// ErrUnavailable: the system doesn't let this user have namespaces.
var ErrUnavailable = errors.New("no namespaces for hosts of their own")

// Inside reports that this run of the program is the one in the namespaces.
func Inside() bool { return os.Getenv(stageEnv) == stageInside }

// Enter runs the program again, with the same arguments, in namespaces of its own. There it
// returns inside = true at once. In the first run it returns when that has ended, with its exit
// code, with which the caller must end. An error that is ErrUnavailable says that nothing was run.
func Enter() (inside bool, code int, err error) {
	switch os.Getenv(stageEnv) {
	case stageInside:
		return true, 0, nil
	case stageInit:
		code, err := asInit()
		return false, code, err
	}
	// The child's parent-death signal is bound to this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil {
		return false, 1, fmt.Errorf("find the running program: %w", err)
	}
	trouble, its, err := os.Pipe()
	if err != nil {
		return false, 1, fmt.Errorf("run in namespaces: %w", err)
	}
	defer func() { _ = trouble.Close() }() // read only: nothing to lose
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageEnv+"="+stageInit)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{its}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
		AmbientCaps: caps, Pdeathsig: syscall.SIGKILL,
	}
	told := child.Forward(syscall.SIGQUIT)
	defer told.Stop()
	err = cmd.Start()
	_ = its.Close() // the child has its own
	if err != nil {
		return false, 1, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	told.To(cmd.Process)
	said, err := io.ReadAll(trouble)
	code, ended := exitCode(cmd.Wait())
	switch {
	case len(said) > 0:
		return false, code, fmt.Errorf("%w: %s", ErrUnavailable, said)
	default:
		return false, code, errors.Join(err, ended)
	}
}

// exitCode is the code that a process ended with, as an error if it is due to a signal.
func exitCode(err error) (int, error) {
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return 0, nil
	case ended && exit.Exited():
		return exit.ExitCode(), nil
	default:
		return 1, fmt.Errorf("the program in its namespaces: %w", err)
	}
}

// asInit is process 1 of the namespaces: all else in them ends with it.
func asInit() (int, error) {
	unix.CloseOnExec(troubleFD)
	trouble := os.NewFile(troubleFD, "trouble")
	if err := prepare(); err != nil {
		_, said := io.WriteString(trouble, err.Error())
		return 1, said
	}
	self, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("find the running program: %w", err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageEnv+"="+stageInside)
	told := child.Forward(syscall.SIGQUIT)
	defer told.Stop()
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("run the program in its namespaces: %w", err)
	}
	if err := trouble.Close(); err != nil {
		return 1, fmt.Errorf("run the program in its namespaces: %w", err)
	}
	told.To(cmd.Process)
	return child.Reap(cmd.Process.Pid, "the program in its namespaces")
}

// troubleFD is where the init tells that it couldn't prepare.
const troubleFD = 3

// prepare makes the namespaces a place to live in: /proc shows them, and packets are passed on.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set up the loopback interface: %w", err)
	}
	for name, value := range map[string]string{"ip_forward": "1", "conf/all/rp_filter": "0", "conf/default/rp_filter": "0"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644); err != nil {
			return fmt.Errorf("pass packets on: %w", err)
		}
	}
	return nil
}
