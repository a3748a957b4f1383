package embedded

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/tlsconf"
)

// sameServers fails unless every running node knows the same voters.
func (c *cluster) sameServers(want int) {
	c.t.Helper()
	for i := range c.nodes {
		if c.nodes[i].store == nil {
			continue
		}
		eventually(c.t, "every node knows the same voters", func() bool {
			return len(c.nodes[i].store.servers()) == want
		})
	}
	for i := range c.nodes {
		if s := c.nodes[i].store; s != nil && !slices.Equal(s.servers(), c.nodes[0].store.servers()) {
			c.t.Errorf("%s knows %v, %s knows %v", c.nodes[0].cfg.Name, c.nodes[0].store.servers(), c.nodes[i].cfg.Name, s.servers())
		}
	}
}

func TestClustersOfOneTwoAndThreeFormByThemselves(t *testing.T) {
	slow(t)
	for _, n := range []int{1, 2, 3} {
		c := newCluster(t, n)
		began := time.Now()
		c.startAll()
		c.put(c.nodes[0].store, "k", "1", "")
		t.Logf("%d nodes: first write after %v", n, time.Since(began).Round(time.Millisecond))
		c.sameServers(n)
		c.stopAll()
	}
}

func TestAClusterIsMadeOnlyWhenAllMembersAreThere(t *testing.T) {
	c := newCluster(t, 3)
	c.start(2)
	c.start(0)
	eventually(t, "the node says whom it waits for", func() bool {
		return c.nodes[0].logs.has("waiting for all members") && c.nodes[0].logs.has(c.nodes[1].cfg.SelfAddr+": doesn't answer")
	})
	if servers := c.nodes[0].store.servers(); len(servers) != 0 {
		t.Fatalf("two of three made a cluster: %v", servers)
	}
	_, err := c.nodes[0].store.View(t.Context(), dcs.Local)
	if !errors.Is(err, dcs.ErrUnavailable) {
		t.Errorf("local view before there is a cluster: %v", err)
	}
	watch, err := c.nodes[0].store.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.start(1)
	rev := c.put(c.nodes[2].store, "k", "1", "")
	c.sameServers(3)
	eventually(t, "the watch that was opened before goes on", func() bool {
		select {
		case v := <-watch:
			return v.Revision >= rev
		default:
			return false
		}
	})
}

// Some nodes end and start again while the cluster is being made.
func TestAClusterFormsAlthoughNodesComeAndGo(t *testing.T) {
	c := newCluster(t, 3)
	c.start(0, 1)
	c.kill(0)
	c.start(2, 0)
	c.kill(1)
	c.start(1)
	c.put(c.nodes[1].store, "k", "1", "")
	c.sameServers(3)
}

func TestNodesWithDifferentListsDoNotMakeACluster(t *testing.T) {
	c := newCluster(t, 2)
	stranger := c.net.reserve(t)
	c.nodes[1].cfg.PartnerAddrs = append(c.nodes[1].cfg.PartnerAddrs, stranger)
	c.startAll()
	eventually(t, "it says that the lists differ", func() bool { return c.nodes[0].logs.has("has another member list") })
	for _, n := range c.nodes {
		if len(n.store.servers()) != 0 {
			t.Errorf("%s made a cluster", n.cfg.Name)
		}
	}
}

func TestNodesOfOneNameDoNotMakeACluster(t *testing.T) {
	c := newCluster(t, 2)
	c.nodes[1].cfg.Name = c.nodes[0].cfg.Name
	c.startAll()
	eventually(t, "it says that the names are the same", func() bool { return c.nodes[0].logs.has("names must differ") })
}

func TestNodesOfOtherClustersAreRefused(t *testing.T) {
	c := newCluster(t, 2)
	c.nodes[1].cfg.Cluster = "service/other"
	c.startAll()
	eventually(t, "it says so", func() bool { return c.nodes[0].logs.has("belongs to another cluster") })
	_, err := Dial(c.ctx(), ClientConfig{Addrs: []string{c.nodes[0].cfg.SelfAddr}, Cluster: "service/other"})
	if !errors.Is(err, dcs.ErrBroken) {
		t.Errorf("dialling another cluster: %v", err)
	}
}

// "Identities": a voter whose folder was lost never votes as the one it was. It uses
// the store through the others and says what to do.
func TestAWipedVoterDoesNotVoteAndUsesTheStoreFromOutside(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	c.put(c.nodes[0].store, "k", "1", "")
	c.sameServers(3)
	const wiped = 2
	oldID := c.nodes[wiped].store.folder.id
	c.kill(wiped)
	if err := os.RemoveAll(c.nodes[wiped].cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	c.start(wiped)
	store := c.nodes[wiped].store
	if store.folder.id == oldID {
		t.Fatal("a wiped folder got its old id back")
	}
	eventually(t, "it says what to do", func() bool { return c.nodes[wiped].logs.has("regent raft member add") })
	c.put(store, "k", "2", "")
	if got := c.get(store, "k"); got != "2" {
		t.Errorf("read through the others: %s", got)
	}
	lease, err := store.Grant(c.ctx(), "l", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Renew(c.ctx(), lease.ID); err != nil {
		t.Error(err)
	}
	watch, err := store.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rev := c.put(c.nodes[0].store, "k", "3", "")
	eventually(t, "it watches through the others", func() bool {
		select {
		case v := <-watch:
			return v.Revision >= rev && v.Age >= 0
		default:
			return false
		}
	})
	// With one of the two real voters gone there is no majority. If the wiped one
	// voted, there would be.
	survivor := 0
	c.kill(1)
	if store.raft.CurrentTerm() != 0 {
		t.Errorf("the wiped voter has taken part in term %d", store.raft.CurrentTerm())
	}
	eventually(t, "the survivor alone leads nothing", func() bool { return c.nodes[survivor].store.current() == nil })
	if st := c.nodes[survivor].store.status(); st.Role == RoleLeader {
		t.Errorf("the survivor leads with the vote of a wiped voter: %+v", st)
	}
	c.start(1)
	c.put(store, "k", "4", "")
}

func TestTheSecretIsMembership(t *testing.T) {
	c := newCluster(t, 2)
	c.nodes[0].cfg.Secret, c.nodes[1].cfg.Secret = "one", "two"
	c.startAll()
	for _, n := range c.nodes {
		eventually(t, "both sides say that the secret differs", func() bool {
			return n.logs.has(tlsconf.ErrSecretDiffers.Error())
		})
	}
	_, err := Dial(c.ctx(), ClientConfig{Addrs: []string{c.nodes[0].cfg.SelfAddr}, Secret: "three"})
	if !errors.Is(err, dcs.ErrBroken) || !errors.Is(err, tlsconf.ErrSecretDiffers) {
		t.Errorf("dialling with another secret: %v", err)
	}
	c.stop(1)
	c.nodes[1].cfg.Secret = "one"
	c.start(1)
	c.put(c.nodes[1].store, "k", "1", "")
	client, err := Dial(c.ctx(), ClientConfig{Addrs: []string{c.nodes[0].cfg.SelfAddr}, Secret: "one"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if got := c.get(client, "k"); got != "1" {
		t.Errorf("the client reads %s", got)
	}
	statuses, err := client.Status(c.ctx())
	if err != nil || len(statuses) != 1 || statuses[0].Name != "pg01" || len(statuses[0].Servers) != 2 {
		t.Errorf("status: %+v, %v", statuses, err)
	}
}

func TestPlainTextAndTLSNameEachOther(t *testing.T) {
	c := newCluster(t, 2)
	c.nodes[0].cfg.Secret = "one"
	c.startAll()
	if c.nodes[0].logs.has("plain text: anyone") || !c.nodes[1].logs.has("plain text: anyone") {
		t.Error("the warning about plain text is on the wrong side")
	}
	eventually(t, "the node with a secret says so", func() bool { return c.nodes[0].logs.has("the peer speaks plain text, this node TLS") })
	eventually(t, "the plain node says so", func() bool { return c.nodes[1].logs.has("the peer speaks TLS, this node plain text") })
	for i, secret := range []string{"", "one"} { // each the wrong way round
		_, err := Dial(c.ctx(), ClientConfig{Addrs: []string{c.nodes[i].cfg.SelfAddr}, Secret: secret})
		if !errors.Is(err, dcs.ErrBroken) {
			t.Errorf("dialling %s with secret %q: %v", c.nodes[i].cfg.Name, secret, err)
		}
	}
}

// The secret is changed while the cluster works: reload by reload, nobody is refused.
func TestTheSecretIsChangedWithoutARestart(t *testing.T) {
	slow(t)
	c := newCluster(t, 3)
	for _, n := range c.nodes {
		n.cfg.Secret = "old"
	}
	c.startAll()
	c.put(c.nodes[0].store, "k", "1", "")
	reload := func(i int, s Security) {
		t.Helper()
		secured, err := s.TLS(string(c.nodes[i].cfg.Name))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.nodes[i].store.Secure(secured); err != nil {
			t.Fatal(err)
		}
		// Old connections stay; break them all, so that new ones must be made.
		c.net.isolate(c.nodes[i].cfg.SelfAddr)
		c.net.heal(c.nodes[i].cfg.SelfAddr)
		c.put(c.nodes[i].store, "k", "2", "")
	}
	for _, s := range []Security{{Secret: "old", Accept: "new"}, {Secret: "new", Accept: "old"}, {Secret: "new"}} {
		for i := range c.nodes {
			reload(i, s)
		}
	}
	for _, n := range c.nodes {
		if n.logs.has(tlsconf.ErrSecretDiffers.Error()) {
			t.Errorf("%s refused a connection", n.cfg.Name)
		}
	}
	if _, err := Dial(c.ctx(), ClientConfig{Addrs: c.nodes[0].cfg.members(), Secret: "old"}); !errors.Is(err, tlsconf.ErrSecretDiffers) {
		t.Errorf("the old secret still opens the store: %v", err)
	}
	if err := c.nodes[0].store.Secure(nil); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("TLS was taken off a running node: %v", err)
	}
}

func TestAMessageThatRepeatsIsToldLessAndLess(t *testing.T) {
	var said logs
	now := events.Instant(1)
	log := newThrottle(slog.New(slog.NewTextHandler(&said, nil)), func() events.Instant { return now })
	for range 24 * 3600 * 4 { // four times a second, for a day
		log.warn("refused", "10.0.0.1")
		now = now.Add(250 * time.Millisecond)
	}
	if n := strings.Count(said.buf.String(), "refused"); n < 24 || n > 30 {
		t.Errorf("told %d times in a day", n)
	}
	now = now.Add(2 * throttleQuiet)
	before := said.buf.Len()
	if log.warn("refused", "10.0.0.1"); said.buf.Len() == before {
		t.Error("when it began again, nothing was told")
	}
}
