package etcd3

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// fake answers as it is told. Answers are made by functions that get the number of the
// question, beginning with 0.
type fake struct {
	pb.UnimplementedKVServer
	pb.UnimplementedLeaseServer
	renew func(n int) (*pb.LeaseKeepAliveResponse, error)
	read  func(n int) (*pb.RangeResponse, error)
	write func(n int) (*pb.TxnResponse, error)

	renewals, reads, writes int // one question at a time
}

func (f *fake) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	r, err := f.renew(f.renewals)
	f.renewals++
	if err != nil {
		return err
	}
	return stream.Send(r)
}

func (f *fake) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	r, err := f.read(f.reads)
	f.reads++
	return r, err
}

func (f *fake) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	r, err := f.write(f.writes)
	f.writes++
	return r, err
}

// serve runs a fake and opens a store on it.
func serve(t *testing.T, f *fake) *Store {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterKVServer(server, f)
	pb.RegisterLeaseServer(server, f)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return open(t, "/service/fake/", "http://"+l.Addr().String())
}

func header(term uint64, revision int64) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 7, RaftTerm: term, Revision: revision}
}

const fakeLease = "00000000000000aa"

// held is a read that shows the leader key under our lease, or under another one.
func held(term uint64, lease int64) *pb.RangeResponse {
	return &pb.RangeResponse{Header: header(term, 10), Kvs: []*mvccpb.KeyValue{
		{Key: []byte("/service/fake/leader"), Value: []byte("pg01"), Lease: lease, CreateRevision: 3, ModRevision: 3},
	}}
}

func renewed(term uint64, ttl int64) *pb.LeaseKeepAliveResponse {
	return &pb.LeaseKeepAliveResponse{Header: header(term, 10), ID: 0xaa, TTL: ttl}
}

// A renewal counts only when a linearizable read sent after it was answered in the same term;
// else whoever answered may have been replaced before (safety rule S8).
func TestRenewalIsConfirmed(t *testing.T) {
	tests := []struct {
		name  string
		renew func(n int) (*pb.LeaseKeepAliveResponse, error)
		read  func(n int) (*pb.RangeResponse, error)
		class error // nil: done
		keys  int
		asked int // renewals that were sent
	}{
		{
			name:  "confirmed",
			renew: func(int) (*pb.LeaseKeepAliveResponse, error) { return renewed(5, 10), nil },
			read:  func(int) (*pb.RangeResponse, error) { return held(5, 0xaa), nil },
			keys:  1, asked: 1,
		},
		{
			name:  "by one who was replaced",
			renew: func(n int) (*pb.LeaseKeepAliveResponse, error) { return renewed(uint64(min(5+n, 6)), 10), nil },
			read:  func(int) (*pb.RangeResponse, error) { return held(6, 0xaa), nil },
			keys:  1, asked: 2,
		},
		{
			name:  "by one who was replaced, for ever",
			renew: func(int) (*pb.LeaseKeepAliveResponse, error) { return renewed(5, 10), nil },
			read:  func(int) (*pb.RangeResponse, error) { return held(6, 0xaa), nil },
			class: dcs.ErrUnknown,
		},
		{
			name:  "nobody confirms",
			renew: func(int) (*pb.LeaseKeepAliveResponse, error) { return renewed(5, 10), nil },
			read:  func(int) (*pb.RangeResponse, error) { return nil, rpctypes.ErrGRPCNoLeader },
			class: dcs.ErrUnknown,
		},
		{
			name:  "the key has another lease",
			renew: func(int) (*pb.LeaseKeepAliveResponse, error) { return renewed(5, 10), nil },
			read:  func(int) (*pb.RangeResponse, error) { return held(5, 0xbb), nil },
			keys:  0, asked: 2,
		},
		{
			name:  "gone",
			renew: func(int) (*pb.LeaseKeepAliveResponse, error) { return renewed(5, 0), nil },
			read:  func(int) (*pb.RangeResponse, error) { return held(5, 0xbb), nil },
			class: dcs.ErrRefused, asked: 2,
		},
		{
			name:  "gone, says one who was replaced",
			renew: func(n int) (*pb.LeaseKeepAliveResponse, error) { return renewed(5, 0), nil },
			read:  func(int) (*pb.RangeResponse, error) { return held(6, 0xbb), nil },
			class: dcs.ErrUnknown,
		},
		{
			name:  "gone, and a key hangs on it: the leader hasn't read its own log yet",
			renew: func(n int) (*pb.LeaseKeepAliveResponse, error) { return renewed(5, int64(n)*5), nil },
			read:  func(int) (*pb.RangeResponse, error) { return held(5, 0xaa), nil },
			keys:  1, asked: 2,
		},
		{
			name:  "no answer",
			renew: func(int) (*pb.LeaseKeepAliveResponse, error) { return nil, rpctypes.ErrGRPCStopped },
			read:  func(int) (*pb.RangeResponse, error) { return held(5, 0xaa), nil },
			class: dcs.ErrUnknown,
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{renew: tc.renew, read: tc.read}
			s := serve(t, f)
			ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
			defer cancel()
			l, err := s.Renew(ctx, fakeLease)
			if !errors.Is(err, tc.class) || (tc.class == nil && err != nil) {
				t.Fatalf("got %v, want %v", err, tc.class)
			}
			if err == nil && (len(l.Keys) != tc.keys || l.TTL <= 0 || l.ID != fakeLease) {
				t.Errorf("got %+v, want %d keys", l, tc.keys)
			}
			if tc.asked != 0 && f.renewals != tc.asked {
				t.Errorf("%d renewals were sent, want %d", f.renewals, tc.asked)
			}
		})
	}
}

// A server that lags behind what was seen isn't believed, even if it says that it reads
// linearizably.
func TestStaleAnswersAreNotBelieved(t *testing.T) {
	f := &fake{read: func(n int) (*pb.RangeResponse, error) {
		return &pb.RangeResponse{Header: []*pb.ResponseHeader{header(5, 10), header(4, 12), header(5, 9), header(5, 11)}[min(n, 3)]}, nil
	}}
	s := serve(t, f)
	for _, want := range []int64{10, 11} {
		v, err := s.View(t.Context(), dcs.Linearizable)
		if err != nil || int64(v.Revision) != want {
			t.Errorf("revision %d, err %v, want %d", v.Revision, err, want)
		}
	}
	if f.reads != 4 {
		t.Errorf("%d reads, want 4: two of them were older than what had been seen", f.reads)
	}
}

// A transaction is sent again only when the server certainly didn't take it.
func TestCommitIsSentOnce(t *testing.T) {
	done := &pb.TxnResponse{Header: header(5, 11), Succeeded: true}
	for name, tc := range map[string]struct {
		first error
		class error
		sent  int
	}{
		"without a leader it was not taken":      {rpctypes.ErrGRPCNoLeader, nil, 2},
		"too many requests: not taken":           {rpctypes.ErrGRPCRequestTooManyRequests, nil, 2},
		"a time-out may hide an effect":          {rpctypes.ErrGRPCTimeout, dcs.ErrUnknown, 1},
		"so may another leader":                  {rpctypes.ErrGRPCTimeoutDueToLeaderFail, dcs.ErrUnknown, 1},
		"and a server that ends":                 {rpctypes.ErrGRPCStopped, dcs.ErrUnknown, 1},
		"a lease that is gone is a refusal":      {rpctypes.ErrGRPCLeaseNotFound, dcs.ErrRefused, 1},
		"a missing permission needs an operator": {rpctypes.ErrGRPCPermissionDenied, dcs.ErrBroken, 1},
		"a full disk needs an operator":          {rpctypes.ErrGRPCNoSpace, dcs.ErrBroken, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{write: func(n int) (*pb.TxnResponse, error) {
				if n == 0 {
					return nil, tc.first
				}
				return done, nil
			}}
			_, err := serve(t, f).Commit(t.Context(), dcs.Txn{Writes: []dcs.Write{dcs.Put("k", nil)}})
			if !errors.Is(err, tc.class) || (tc.class == nil && err != nil) || f.writes != tc.sent {
				t.Errorf("got %v after %d tries, want %v after %d", err, f.writes, tc.class, tc.sent)
			}
		})
	}
}

// What never left can't have happened; what left may have.
func TestUnsentIsUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, "/service/nobody/", "http://"+addr)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("k", nil)}}); !errors.Is(err, dcs.ErrUnavailable) {
		t.Errorf("commit where nobody listens: %v", err)
	}
}

func TestLeaseIDs(t *testing.T) {
	if id := leaseID(leaseNumber(fakeLease)); id != fakeLease {
		t.Errorf("%s became %s", fakeLease, id)
	}
	for _, id := range []string{"ffffffffffffffff", "", "word", "0000000000000000", "-000000000000001"} {
		if n := leaseNumber(events.LeaseID(id)); n <= 0 {
			t.Errorf("%q became %d", id, n)
		}
	}
	if leaseNumber("word") == leaseNumber("other") {
		t.Error("two words name one lease")
	}
	if leaseID(0) != "" {
		t.Error("no lease has an id")
	}
}

func TestOtherClustersAreNotBelieved(t *testing.T) {
	first := &pb.RangeResponse{Header: header(5, 10)}
	other := &pb.RangeResponse{Header: &pb.ResponseHeader{ClusterId: 8, RaftTerm: 9, Revision: 99}}
	f := &fake{read: func(n int) (*pb.RangeResponse, error) {
		if n == 0 {
			return first, nil
		}
		return other, nil
	}}
	s := serve(t, f)
	if _, err := s.View(t.Context(), dcs.Linearizable); err != nil {
		t.Fatal(err)
	}
	if v, err := s.View(t.Context(), dcs.Linearizable); !errors.Is(err, dcs.ErrBroken) {
		t.Errorf("the view of another etcd was taken: %+v, %v", v, err)
	}
}

func TestVersionsThatEndLeasesEarly(t *testing.T) {
	for version, early := range map[string]bool{
		"3.4.23": true, "3.4.30": true, "3.4.31": false, "3.5.12": true, "3.5.13": false, "3.6.0": false, "3.6.0-rc.1": false,
		"3.3.27": true, "4.0.0": false, "": false, "custom": false,
	} {
		if endsLeasesEarly(version) != early {
			t.Errorf("%q: %v", version, !early)
		}
	}
}
