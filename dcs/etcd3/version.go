package etcd3

import (
	"context"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// endsLeasesEarly: in these versions a leader that was replaced while its disk or its processor
// hung goes on to revoke leases that were renewed with its successor. A holder learns of it by
// its watch, but until then it believes in a lease that is gone. Later versions ask themselves
// whether they still lead, but not when the whole process stood still and has just ticked.
func endsLeasesEarly(version string) bool {
	var v [3]int
	for i, part := range strings.SplitN(version, ".", 3) {
		digits := strings.FieldsFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if len(digits) == 0 {
			return false // unheard of
		}
		v[i], _ = strconv.Atoi(digits[0])
	}
	switch {
	case v[0] != 3:
		return v[0] < 3
	case v[1] == 4:
		return v[2] < 31
	case v[1] == 5:
		return v[2] < 13
	default:
		return v[1] < 4
	}
}

// judgeVersion warns of a server with that fault.
func (s *Store) judgeVersion(ctx context.Context) {
	order := s.pool.order()
	if len(order) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readMax)
	defer cancel()
	e := order[0]
	r, err := ask(ctx, s, e, func(ctx context.Context) (*pb.StatusResponse, error) {
		return pb.NewMaintenanceClient(e.conn).Status(ctx, &pb.StatusRequest{})
	})
	if err == nil && endsLeasesEarly(r.Version) {
		s.log.Warn("this version of etcd may end leases too early when its leader hangs: upgrade it to 3.4.31, 3.5.13 or newer",
			"version", r.Version, "server", e.url)
	}
}
