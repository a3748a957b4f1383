package hosts

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// childEnv tells the test binary to be the program that TestNothingIsLeft starts, in that folder.
const childEnv = "REGENT_CHILD_DIR"

// asChild is a program as cmd/regent-chaos is one: it runs a cluster on hosts, says "ready" when
// there is a primary, and ends at SIGTERM.
func asChild(dir string) int {
	base, code, err := sandbox.Enter(sandbox.BaseOptions{
		Dir: dir, Programs: os.Getenv(childEnv + "_BIN"), Inside: Enter, In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
	})
	if base == nil {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return code
	}
	if err := runChild(base); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runChild(base *sandbox.Base) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	s, err := Raise(ctx, Options{Dir: filepath.Join(base.Dir, "site"), Cluster: sandbox.Options{Bin: base.Bin, PGBin: base.PGBin},
		Disks: []sandbox.Disk{sandbox.JournalDisk}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Cluster.PowerOn(); err != nil {
		return err
	}
	if _, err := s.Cluster.AwaitPrimary(ctx); err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	return base.Leave()
}

// TestNothingIsLeft ends a program that runs a cluster on hosts, in every way, and finds no
// process, no namespace and no folder of it afterwards.
func TestNothingIsLeft(t *testing.T) {
	need(t)
	for name, end := range map[string]func(t *testing.T, supervisor int, dir string){
		"at SIGTERM": func(t *testing.T, supervisor int, _ string) { must(t, unix.Kill(supervisor, unix.SIGTERM)) },
		"at SIGKILL of the program": func(t *testing.T, _ int, dir string) {
			must(t, unix.Kill(stage(t, dir, stageInside), unix.SIGKILL))
		},
		"at SIGKILL of its init": func(t *testing.T, _ int, dir string) { must(t, unix.Kill(stage(t, dir, stageInit), unix.SIGKILL)) },
		"at SIGKILL of its supervisor": func(t *testing.T, supervisor int, _ string) {
			must(t, unix.Kill(supervisor, unix.SIGKILL))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(pgtest.SocketDir(t), "b")
			cmd := startChild(t, dir)
			spaces := namespaces(dir)
			if len(spaces) < 4 { // the program's and three hosts'
				t.Errorf("only %d network namespaces", len(spaces))
			}
			end(t, cmd.Process.Pid, dir)
			if err := cmd.Wait(); name == "at SIGTERM" && err != nil {
				t.Error(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for left := ""; ; {
				if left = remains(dir, spaces); left == "" {
					return
				}
				if !wait(ctx) {
					t.Fatalf("left: %s", left)
				}
			}
		})
	}
}

// startChild returns when the child's cluster has a primary.
func startChild(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, stageEnv+"=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, childEnv+"="+dir, childEnv+"_BIN="+filepath.Dir(pgtest.Binary(t, "regent")))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, unless the test failed
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("the child isn't ready: %q, %v", lines.Text(), lines.Err())
	}
	return cmd
}

// running lists the processes in and from the folder.
func running(dir string) (pids []int) {
	entries, _ := os.ReadDir("/proc") // it is there
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		for _, link := range []string{"exe", "cwd"} {
			if path, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, link)); err == nil && strings.HasPrefix(path, dir+"/") {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// stage returns the program's run that is at a stage.
func stage(t *testing.T, dir, stage string) int {
	t.Helper()
	for _, pid := range running(dir) {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		vars := bytes.Split(env, []byte{0})
		last := ""
		for _, v := range vars {
			if value, found := strings.CutPrefix(string(v), stageEnv+"="); found {
				last = value
			}
		}
		if err == nil && last == stage {
			return pid
		}
	}
	t.Fatalf("no process is at the stage %s", stage)
	return 0
}

// namespaces are the network namespaces of the processes in and from the folder.
func namespaces(dir string) map[string]bool {
	spaces := map[string]bool{}
	for _, pid := range running(dir) {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil {
			spaces[ns] = true
		}
	}
	// The supervisor's is this thread's. The first thread, which /proc/self shows, may be parked in a host's.
	own, _ := os.Readlink("/proc/thread-self/ns/net")
	delete(spaces, own)
	return spaces
}

// remains describes what is left of a program; empty: nothing.
func remains(dir string, spaces map[string]bool) string {
	if pids := running(dir); len(pids) > 0 {
		return fmt.Sprint("processes ", pids)
	}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net") // a pattern of ours
	for _, link := range links {
		if ns, err := os.Readlink(link); err == nil && spaces[ns] {
			return link + " is " + ns
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || bytes.Contains(mounts, []byte(dir+"/")) {
		return fmt.Sprintf("mounts: %v %s", err, mounts)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return "the folder " + dir
	}
	return ""
}
