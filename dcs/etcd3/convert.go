package etcd3

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// leaseNumber is etcd's id of a lease. Ours are its 16 hexadecimal digits, as etcd's own
// tools print them; any other word is hashed, so that it names the same lease each time.
func leaseNumber(id events.LeaseID) int64 {
	n, err := strconv.ParseUint(string(id), 16, 64)
	if err != nil || len(id) != 16 {
		sum := sha256.Sum256([]byte(id))
		n = binary.BigEndian.Uint64(sum[:8])
	}
	return positive(n)
}

// positive makes an id that etcd's tools can take: not negative, and not zero.
func positive(n uint64) int64 { return max(1, int64(n&math.MaxInt64)) }

// freshNumber draws the id of a new lease: the caller's choice, or any.
func freshNumber(hint events.LeaseID) (int64, error) {
	if hint != "" {
		return leaseNumber(hint), nil
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("draw a lease id: %w: %w", dcs.ErrUnavailable, err)
	}
	return positive(binary.BigEndian.Uint64(b[:])), nil
}

func leaseID(n int64) events.LeaseID {
	if n == 0 {
		return ""
	}
	return events.LeaseID(fmt.Sprintf("%016x", uint64(n)))
}

// wholeSeconds rounds up: etcd counts in seconds, and a lease may not end too early.
func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// rangeEnd is the first key after all that begin with the prefix.
func rangeEnd(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++ // a slash, by Config's rule
	return end
}

func (s *Store) key(name string) []byte { return []byte(s.cfg.Prefix + name) }

// entry translates one key; its name is relative to the prefix.
func (s *Store) entry(kv *mvccpb.KeyValue) dcs.KV {
	return dcs.KV{
		Key: strings.TrimPrefix(string(kv.Key), s.cfg.Prefix), Value: kv.Value, Lease: leaseID(kv.Lease),
		Created: events.Revision(kv.CreateRevision), Version: events.Revision(kv.ModRevision),
	}
}

// transaction translates one. The guards are compared, and the writes happen, at one
// revision.
func (s *Store) transaction(t dcs.Txn) *etcdserverpb.TxnRequest {
	r := &etcdserverpb.TxnRequest{}
	for _, g := range t.Guards {
		r.Compare = append(r.Compare, s.compares(g)...)
	}
	for _, w := range t.Writes {
		op := &etcdserverpb.RequestOp{}
		if w.Delete {
			op.Request = &etcdserverpb.RequestOp_RequestDeleteRange{
				RequestDeleteRange: &etcdserverpb.DeleteRangeRequest{Key: s.key(w.Key)},
			}
		} else {
			put := &etcdserverpb.PutRequest{Key: s.key(w.Key), Value: w.Value}
			if w.Lease != "" {
				put.Lease = leaseNumber(w.Lease)
			}
			op.Request = &etcdserverpb.RequestOp_RequestPut{RequestPut: put}
		}
		r.Success = append(r.Success, op)
	}
	return r
}

// compares of a guard. An absent key compares as if it were of revision and lease zero.
func (s *Store) compares(g dcs.Guard) []*etcdserverpb.Compare {
	equal := func() *etcdserverpb.Compare {
		return &etcdserverpb.Compare{Key: s.key(g.Key), Result: etcdserverpb.Compare_EQUAL}
	}
	var out []*etcdserverpb.Compare
	switch {
	case g.Absent:
		c := equal()
		c.Target, c.TargetUnion = etcdserverpb.Compare_CREATE, &etcdserverpb.Compare_CreateRevision{CreateRevision: 0}
		return []*etcdserverpb.Compare{c}
	case g.Version != 0:
		c := equal()
		c.Target, c.TargetUnion = etcdserverpb.Compare_MOD, &etcdserverpb.Compare_ModRevision{ModRevision: int64(g.Version)}
		out = append(out, c)
	case g.Value != nil:
		c := equal()
		c.Target, c.TargetUnion = etcdserverpb.Compare_VALUE, &etcdserverpb.Compare_Value{Value: []byte(*g.Value)}
		out = append(out, c)
	}
	if g.Lease != "" {
		c := equal()
		c.Target, c.TargetUnion = etcdserverpb.Compare_LEASE, &etcdserverpb.Compare_Lease{Lease: leaseNumber(g.Lease)}
		out = append(out, c)
	}
	return out
}
