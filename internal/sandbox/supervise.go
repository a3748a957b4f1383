package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/child"
)

// baseEnv tells the program's second run where its base is, and that it is the second.
const baseEnv = "REGENT_SANDBOX_BASE"

// BaseOptions say how a program wants to be supervised.
type BaseOptions struct {
	// Dir is the folder to make; empty: a new one in the temporary folder.
	Dir string
	// Programs are the folder with regent and regent-keeper.
	Programs string
	// Also are further programs that are needed inside, by their paths; copies of them lie beside
	// regent's, for the user inside may not reach the originals.
	Also []string
	// Keep leaves the folder in place at the end.
	Keep bool
	// Inside, when set, runs the program once more inside the sandbox, where it says so: see
	// hosts.Enter.
	Inside func() (inside bool, code int, err error)
	// Outputs are files that the program leaves in its base, by their names there. Each is
	// handed over at the end, by the first run, since the user that the second one runs as may not
	// write here. One that the program didn't write is left out.
	Outputs map[string]func(content []byte) error
	// In, Out and Err are the program's own, and become its second run's. Err also receives
	// sentences about the sandbox itself.
	In, Out, Err *os.File
}

// Base is a program's folder for its sandboxes. It is world-readable, owned by the user that
// runs PostgreSQL, and gone when the program has ended.
type Base struct {
	Dir string
	// Bin holds copies of regent and regent-keeper, PGBin PostgreSQL's programs.
	Bin, PGBin string

	supervisor int // its pid
}

// Leave must be called when the program ends. It does nothing as long as there is a supervisor
// to sweep; without one it removes the folder, unless it is to be kept.
func (b *Base) Leave() error {
	if os.Getppid() == b.supervisor {
		return nil
	}
	if _, err := os.Stat(filepath.Join(b.Dir, keepMark)); err == nil {
		return nil
	}
	if err := os.RemoveAll(b.Dir); err != nil {
		return fmt.Errorf("remove the sandbox's folder: %w", err)
	}
	return nil
}

// KeepFolder makes the supervisor leave the base in place.
func (b *Base) KeepFolder() error {
	if err := os.WriteFile(filepath.Join(b.Dir, keepMark), nil, 0o644); err != nil {
		return fmt.Errorf("keep the sandbox: %w", err)
	}
	return nil
}

// keepMark is the file that KeepFolder leaves for the supervisor.
const keepMark = "keep"

// Enter gives the running program a Base. It runs the program a second time, with the same
// arguments, as its child: as a user that PostgreSQL accepts when the caller is root, and with
// every orphan of the sandbox becoming the first run's child. In the second run Enter returns
// the Base. In the first one it returns a nil Base when the second has ended and everything was
// swept, with the second's exit code, with which the caller must end.
//
// When the supervisor itself is killed, the program is told by SIGTERM, and must Close its
// clusters and Leave then as it does at every other end.
func Enter(o BaseOptions) (*Base, int, error) {
	pgBin, err := FindPostgres()
	if err != nil {
		return nil, 1, err
	}
	if dir := os.Getenv(baseEnv); dir != "" {
		return enterFurther(o, &Base{Dir: dir, Bin: filepath.Join(dir, "bin"), PGBin: pgBin, supervisor: os.Getppid()})
	}
	// The child's parent-death signal is bound to this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	who, err := pickUser()
	if err != nil {
		return nil, 1, err
	}
	s := supervisor{opt: o, user: who}
	if err := s.prepare(); err != nil {
		return nil, 1, errors.Join(err, s.sweep())
	}
	code, err := s.run()
	if err := errors.Join(err, s.bringOutputs(), s.sweep()); err != nil {
		return nil, max(code, 1), err
	}
	return nil, code, nil
}

// enterFurther is Enter in the second run. A run further inside sees nothing of the supervisor, so
// the second one leaves for it.
func enterFurther(o BaseOptions, b *Base) (*Base, int, error) {
	if o.Inside == nil {
		return b, 0, nil
	}
	inside, code, err := o.Inside()
	if inside {
		return b, code, err
	}
	return nil, code, errors.Join(err, b.Leave())
}

// Entered reports that this is the second run. It works elsewhere and as somebody else: paths and
// files of the caller's are the first run's business.
func Entered() bool { return os.Getenv(baseEnv) != "" }

type supervisor struct {
	opt  BaseOptions
	user account
	dir  string
	self string
}

// prepare makes the folder with the programs in it.
func (s *supervisor) prepare() error {
	dir, err := s.makeFolder()
	if err != nil {
		return fmt.Errorf("make the sandbox's folder: %w", err)
	}
	s.dir = dir
	bin := filepath.Join(dir, "bin")
	err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(bin, 0o755), s.user.own(dir))
	if err != nil {
		return fmt.Errorf("make the sandbox's folder: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the running program: %w", err)
	}
	s.self = filepath.Join(bin, filepath.Base(self))
	sources := map[string]string{filepath.Base(self): self}
	for _, name := range []string{"regent", "regent-keeper"} {
		sources[name] = filepath.Join(s.opt.Programs, name)
	}
	for _, path := range s.opt.Also {
		sources[filepath.Base(path)] = path
	}
	for name, from := range sources {
		if err := copyProgram(from, filepath.Join(bin, name)); err != nil {
			return fmt.Errorf("copy %s into the sandbox: %w", name, err)
		}
	}
	return nil
}

// longestBase leaves room for a node's socket below the folder.
const longestBase = 60

func (s *supervisor) makeFolder() (string, error) {
	if s.opt.Dir == "" {
		base := os.TempDir()
		if len(base) > longestBase/2 {
			base = "/tmp"
		}
		return os.MkdirTemp(base, "regent-")
	}
	dir, err := filepath.Abs(s.opt.Dir)
	if err != nil {
		return "", err
	}
	if len(dir) > longestBase {
		return "", fmt.Errorf("%s: longer than %d bytes, which leaves no room for the paths of sockets", dir, longestBase)
	}
	return dir, os.Mkdir(dir, 0o755)
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only: nothing to lose
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	// Whatever the umask left away, the other user must be able to run it.
	return errors.Join(err, out.Chmod(0o755), out.Close())
}

// run runs the program inside and returns its exit code.
func (s *supervisor) run() (int, error) {
	cmd := exec.Command(s.self, os.Args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = s.environment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.opt.In, s.opt.Out, s.opt.Err
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if s.user.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.user.uid, Gid: s.user.gid}
	}
	// Keepers and postmasters whose parents were killed come here, so that their zombies
	// are reaped: to PostgreSQL a zombie postmaster still looks alive.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, fmt.Errorf("become the sandbox's subreaper: %w", err)
	}
	// The System V segment of a killed server would outlive it; a namespace of their own takes
	// all of them with it. This thread's children are in it. Only root may have one: for others
	// freeSharedMemory finds those whose data directory is still there.
	_ = unix.Unshare(unix.CLONE_NEWIPC)
	return child.Run(cmd, "the program in its sandbox")
}

func (s *supervisor) environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if s.user.switched && (name == "HOME" || name == "USER" || name == "LOGNAME" || strings.HasPrefix(name, "XDG_")) {
			continue
		}
		env = append(env, kv)
	}
	if s.user.switched {
		env = append(env, "HOME="+s.dir, "USER="+s.user.name, "LOGNAME="+s.user.name)
	}
	return append(env, baseEnv+"="+s.dir)
}

func (s *supervisor) bringOutputs() error {
	var errs []error
	for from, put := range s.opt.Outputs {
		content, err := os.ReadFile(filepath.Join(s.dir, from))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = put(content)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("bring %s out of the sandbox: %w", from, err))
		}
	}
	return errors.Join(errs...)
}

// sweep ends what is left of the sandbox, and removes the folder unless it is to be kept.
func (s *supervisor) sweep() error {
	if s.dir == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	err := killAll(ctx, func() []process {
		reapEnded()
		return processesOf(s.dir, nil)
	})
	freeSharedMemory(filepath.Join(s.dir, "*"))
	if _, marked := os.Stat(filepath.Join(s.dir, keepMark)); s.opt.Keep || marked == nil {
		_, _ = fmt.Fprintf(s.opt.Err, "The sandbox's folder was kept: %s\n", s.dir)
		return err
	}
	if removed := os.RemoveAll(s.dir); removed != nil {
		err = errors.Join(err, fmt.Errorf("remove the sandbox's folder: %w", removed))
	}
	return err
}

// reapEnded reaps the children that have ended already.
func reapEnded() {
	for {
		var ws unix.WaitStatus
		if pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil); pid <= 0 && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
