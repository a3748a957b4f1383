package etcd3

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"go.etcd.io/etcd/api/v3/authpb"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/events"
)

// eventually asks until it is so, for as long as a busy machine may take.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("it never came about: %s", what)
		}
		wait(t.Context(), 20*time.Millisecond)
	}
}

func put(t *testing.T, s *Store, value string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := s.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("k", []byte(value))}})
	return err
}

// A store that was told of one server finds the others, and outlives it.
func TestOtherServersAreFound(t *testing.T) {
	slow(t)
	c := etcdtest.Start(t, etcdtest.Options{Version: etcdtest.V36, Servers: 3})
	cfg := testConfig("/service/found/", c.URLs()[0])
	cfg.Fixed = false
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	eventually(t, "three servers are known", func() bool { return len(s.pool.order()) == 3 })
	c.Kill(0)
	eventually(t, "a write without the server that was configured", func() bool { return put(t, s, "1") == nil })
}

// A server that stands still costs a renewal a fraction of its time, not all of it (S7).
func TestSilentServersAreNotWaitedOut(t *testing.T) {
	slow(t)
	c := etcdtest.Start(t, etcdtest.Options{Version: etcdtest.V36, Servers: 3})
	s := open(t, "/service/silent/", c.URLs()...)
	l, err := s.Grant(t.Context(), "", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	silent := (leader + 1) % 3
	for i, e := range s.pool.order() { // the silent one is the favourite
		if e.url == c.URLs()[silent] {
			s.pool.answered(s.pool.order()[i], s.cfg.now())
			break
		}
	}
	if err := c.Signal(silent, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Signal(silent, syscall.SIGCONT) }()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := s.Renew(ctx, l.ID); err != nil {
		t.Errorf("renewing while the favourite stands still: %v", err)
	}
	if err := put(t, s, "1"); err != nil {
		t.Errorf("writing afterwards: %v", err)
	}
}

// Etcd moves its leadership without anybody noticing.
func TestMovedLeader(t *testing.T) {
	slow(t)
	c := etcdtest.Start(t, etcdtest.Options{Version: etcdtest.V36, Servers: 3})
	s := open(t, "/service/moved/", c.URLs()...)
	l, err := s.Grant(t.Context(), "", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), dcs.Txn{Writes: []dcs.Write{{Key: "leader", Value: []byte("pg01"), Lease: l.ID}}}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := c.MoveLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		r, err := s.Renew(ctx, l.ID)
		cancel()
		if err != nil || !slices.Equal(r.Keys, []string{"leader"}) {
			t.Errorf("renewed with keys %v, err %v", r.Keys, err)
		}
	}
}

// secured turns on users: root, and regent, who may use one prefix.
func secured(t *testing.T, c *etcdtest.Cluster, prefix string) {
	t.Helper()
	err := c.Use(t.Context(), 0, func(_ context.Context, conn *grpc.ClientConn) error {
		// Passwords are hashed slowly, on a busy machine more slowly than other requests may take.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		a := pb.NewAuthClient(conn)
		var errs []error
		did := func(err error) { errs = append(errs, err) }
		for _, user := range []string{"root", "regent"} {
			_, err := a.UserAdd(ctx, &pb.AuthUserAddRequest{Name: user, Password: "secret-of-" + user, Options: &authpb.UserAddOptions{}})
			did(err)
			_, err = a.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: user})
			did(err)
			_, err = a.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: user, Role: user})
			did(err)
		}
		_, err := a.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "regent", Perm: &authpb.Permission{
			PermType: authpb.Permission_READWRITE, Key: []byte(prefix), RangeEnd: rangeEnd(prefix),
		}})
		did(err)
		_, err = a.AuthEnable(ctx, &pb.AuthEnableRequest{})
		did(err)
		return errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Users, passwords and permissions: what is wrong is said, and a token that the server forgot
// is asked for again, in the middle of a watch and of a lease's life.
func TestLogins(t *testing.T) {
	slow(t)
	for _, v := range []etcdtest.Version{etcdtest.V34, etcdtest.V36} {
		t.Run(string(v), func(t *testing.T) {
			c := etcdtest.Start(t, etcdtest.Options{Version: v})
			secured(t, c, "/service/mine/")
			as := func(user, password, prefix string) *Store {
				cfg := testConfig(prefix, c.URLs()...)
				cfg.Username, cfg.Password = user, password
				s, err := Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				return s
			}
			for what, tc := range map[string]struct {
				store *Store
				todo  string
			}{
				"no user":          {as("", "", "/service/mine/"), "set etcd3.username and etcd3.password"},
				"a wrong password": {as("regent", "guess", "/service/mine/"), "correct etcd3.username and etcd3.password"},
				"another prefix":   {as("regent", "secret-of-regent", "/service/theirs/"), "etcdctl role grant-permission"},
			} {
				err := put(t, tc.store, "1")
				if class := dcs.ClassOf(err); err == nil || class != events.Unavailable || strings.Contains(err.Error(), "guess") {
					t.Errorf("%s: %v", what, err)
				}
				if what != "no user" && !errors.Is(err, dcs.ErrBroken) {
					t.Errorf("%s needs an operator, and the error doesn't say so: %v", what, err)
				}
				if err != nil && !strings.Contains(err.Error(), tc.todo) {
					t.Errorf("%s: it doesn't say what to do: %v", what, err)
				}
			}
			s := as("regent", "secret-of-regent", "/service/mine/")
			keepsGoing(t, c, s)
			s.Login("regent", "guess")
			if err := put(t, s, "3"); !errors.Is(err, dcs.ErrBroken) {
				t.Errorf("the password was changed to a wrong one: %v", err)
			}
			s.Login("regent", "secret-of-regent")
			if err := put(t, s, "4"); err != nil {
				t.Errorf("the password was put right: %v", err)
			}
		})
	}
}

// keepsGoing: the server restarts and forgets every token.
func keepsGoing(t *testing.T, c *etcdtest.Cluster, s *Store) {
	t.Helper()
	if err := put(t, s, "1"); err != nil {
		t.Fatal(err)
	}
	l, err := s.Grant(t.Context(), "", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	views, err := s.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	<-views
	c.Kill(0)
	if err := c.Run(0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a write after the server forgot who we are", func() bool { return put(t, s, "2") == nil })
	if _, err := s.Renew(t.Context(), l.ID); err != nil {
		t.Errorf("renew: %v", err)
	}
	for end := time.After(20 * time.Second); ; {
		select {
		case v := <-views:
			if kv, _ := v.Get("k"); string(kv.Value) == "2" {
				return
			}
		case <-end:
			t.Fatal("the watch didn't go on")
		}
	}
}
