package clients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/storetest"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// world is a cluster, with clients in front of it.
type world struct {
	*testing.T
	ctx     context.Context
	cluster *sandbox.Cluster
	clients map[string]database
}

// Each client follows a switchover and the death of the primary's node.
func TestClientsFollowThePrimary(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes: real clusters are left out of -short")
	}
	for _, kind := range sandbox.StoreKinds() {
		t.Run(string(kind), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			w := &world{T: t, ctx: ctx, clients: map[string]database{}}
			store := w.startStore(kind)
			w.startCluster(kind, store)
			w.clients["DSN with three hosts"] = database{w, w.cluster.DSN()}
			w.clients["HAProxy"] = database{w, w.cluster.DSNAt(w.startHAProxy())}
			w.follow()
		})
	}
}

func (w *world) startStore(kind sandbox.StoreKind) *sandbox.StoreServer {
	w.Helper()
	if kind.Program() == "" {
		return nil
	}
	program := ""
	if kind == sandbox.Etcd3Store {
		program = etcdtest.Binary(w.T, etcdtest.V36)
	} else {
		program = consultest.Binary(w.T)
	}
	server, err := sandbox.StartStore(w.ctx, kind, program, filepath.Join(pgtest.SocketDir(w.T), "store"))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := server.Close(); err != nil {
			w.Error(err)
		}
	})
	return server
}

func (w *world) startCluster(kind sandbox.StoreKind, store *sandbox.StoreServer) {
	w.Helper()
	set := sandbox.Options{
		Dir: filepath.Join(pgtest.SocketDir(w.T), "c"), Bin: filepath.Dir(pgtest.Binary(w.T, "regent")), PGBin: pgtest.BinDir(w.T),
	}
	set.TTL, set.LoopWait, set.RetryTimeout = kind.Timings()
	if store != nil {
		set.Store = store.Section()
	}
	cluster, err := sandbox.New(set)
	if err != nil {
		w.Fatal(err)
	}
	w.cluster = cluster
	w.Cleanup(func() {
		if w.Failed() {
			for _, n := range cluster.Nodes() {
				w.Logf("%s said:\n%s", n.Name(), n.Tail(30))
			}
		}
		if err := cluster.Close(); err != nil {
			w.Error(err)
		}
	})
	if err := cluster.PowerOn(); err != nil {
		w.Fatal(err)
	}
	if _, err := cluster.AwaitStreaming(w.ctx); err != nil {
		w.Fatal(err)
	}
}

// follow moves the primary in both ways and waits for every client.
func (w *world) follow() {
	primary, err := w.cluster.Primary(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	w.await("at first", primary.Name(), time.Now())
	to := w.other(primary)
	began := time.Now()
	if answer, err := primary.Switchover(w.ctx, primary.Name(), to.Name()); err != nil {
		w.Fatalf("switchover: %v: %s", err, answer)
	}
	w.await("switchover", to.Name(), began)
	if _, err := w.cluster.AwaitStreaming(w.ctx); err != nil {
		w.Fatal(err)
	}
	began = time.Now()
	to.PowerOff()
	if err := to.KillNode(); err != nil {
		w.Fatal(err)
	}
	w.await("the primary's node dies", w.next(to).Name(), began)
}

func (w *world) other(than *sandbox.Node) *sandbox.Node {
	for _, n := range w.cluster.Nodes() {
		if n != than {
			return n
		}
	}
	return nil
}

// next waits for a primary other than the one that is gone.
func (w *world) next(gone *sandbox.Node) *sandbox.Node {
	w.Helper()
	for {
		n, err := w.cluster.AwaitPrimary(w.ctx)
		if err != nil {
			w.Fatal(err)
		}
		if n != gone {
			return n
		}
	}
}

// await waits until every client leads to the member.
func (w *world) await(what, member string, since time.Time) {
	w.Helper()
	for name, c := range w.clients {
		for {
			got, err := c.leadsTo(w.ctx)
			if err == nil && got == member {
				break
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-w.ctx.Done():
				w.Fatalf("%s: %s leads to %q, not to %s: %v", what, name, got, member, errors.Join(err, context.Cause(w.ctx)))
			}
		}
		w.Logf("%-24s %-21s leads to %s after %.1f s", what+":", name, member, time.Since(since).Seconds())
	}
}

// database leads to where its DSN takes a write.
type database struct {
	w   *world
	dsn string
}

// leadsTo names the member that it leads to now.
func (d database) leadsTo(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.dsn)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has served its purpose
	var port int
	err = conn.QueryRow(ctx, "WITH w AS (SELECT pg_logical_emit_message(true, 'clients', 'a write')) SELECT inet_server_port() FROM w").Scan(&port)
	return d.w.cluster.PortNames()[port], err
}

// startHAProxy starts one as the example that comes with Patroni configures it, and returns the address
// that leads to the primary.
func (w *world) startHAProxy() string {
	w.Helper()
	program := pgtest.Tool(w.T, "haproxy", "/usr/sbin/haproxy")
	dir := w.TempDir()
	addr := fmt.Sprintf("127.0.0.1:%d", pgtest.FreePort(w.T))
	conf := "global\n    maxconn 100\n\ndefaults\n    log global\n    mode tcp\n    retries 2\n    timeout client 30m\n" +
		"    timeout connect 4s\n    timeout server 30m\n    timeout check 5s\n\nlisten demo\n    bind " + addr + "\n" +
		"    option httpchk\n    http-check expect status 200\n    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions\n"
	for port, name := range w.cluster.PortNames() {
		rest := strings.TrimPrefix(w.cluster.Node(name).RESTURL(), "http://127.0.0.1:")
		conf += fmt.Sprintf("    server %s 127.0.0.1:%d maxconn 100 check port %s\n", name, port, rest)
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		w.Fatal(err)
	}
	w.run(exec.Command(program, "-f", file, "-db"), filepath.Join(dir, "log"))
	return addr
}

// run runs a program until the test ends, and shows what it said if that fails.
func (w *world) run(cmd *exec.Cmd, log string) {
	w.Helper()
	f, err := os.Create(log)
	if err != nil {
		w.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		w.Fatalf("start %s: %v", cmd.Path, errors.Join(err, f.Close()))
	}
	w.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		_ = f.Close()
		if said, err := os.ReadFile(log); err == nil && w.Failed() {
			w.Logf("%s said:\n%s", filepath.Base(cmd.Path), said[max(0, len(said)-2000):])
		}
	})
}
