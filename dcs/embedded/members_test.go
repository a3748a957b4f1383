package embedded

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// operator is a client that knows every node.
func (c *cluster) operator() *Client {
	c.t.Helper()
	client, err := Dial(c.ctx(), ClientConfig{Addrs: c.nodes[0].cfg.members(), Cluster: "service/test", Secret: c.secret})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { client.Close() })
	return client
}

// repeated calls f until it answers something certain, as an operator is told to.
func repeated(t *testing.T, f func() (Server, error)) (Server, error) {
	t.Helper()
	var server Server
	var err error
	eventually(t, "a change of members has an outcome", func() bool {
		server, err = f()
		class := dcs.ClassOf(err)
		return class == events.Done || class == events.Refused
	})
	return server, err
}

func (c *cluster) voters(client *Client) []string {
	c.t.Helper()
	members, err := client.Members(c.ctx())
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, m := range members {
		if m.Voter {
			out = append(out, m.Name)
		}
	}
	slices.Sort(out)
	return out
}

// A node that joins an existing cluster is outside until it is added, has a vote once it
// has caught up, and is outside again when it is removed.
func TestANodeIsAddedAndRemoved(t *testing.T) {
	slow(t)
	c := newCluster(t, 2)
	c.startAll()
	c.put(c.nodes[0].store, "k", "1", "")
	c.addNode("witness")
	c.setPartners()
	c.start(2)
	store, addr := c.nodes[2].store, c.nodes[2].cfg.SelfAddr
	eventually(t, "the new node says what to do", func() bool { return c.nodes[2].logs.has("regent raft member add") })
	watch, err := store.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := c.operator()
	added, err := repeated(t, func() (Server, error) { return client.AddMember(c.ctx(), addr, true) })
	if err != nil || !added.Voter || added.Name != "witness" {
		t.Fatalf("added %+v, %v", added, err)
	}
	if again, err := repeated(t, func() (Server, error) { return client.AddMember(c.ctx(), addr, true) }); err != nil || again != added {
		t.Errorf("adding twice: %+v, %v", again, err)
	}
	if got := c.voters(client); !slices.Equal(got, []string{"pg01", "pg02", "witness"}) {
		t.Errorf("voters: %v", got)
	}
	eventually(t, "the node has its own copy", func() bool { return store.status().Role != RoleOutside && store.localView().Age >= 0 })
	c.kill(0) // two of three are left
	rev := c.put(c.nodes[1].store, "k", "2", "")
	awaitRevision(t, watch, rev)
	c.start(0)

	eventually(t, "the node is removed, once the others are well", func() bool {
		_, err := client.RemoveMember(c.ctx(), "witness", false)
		return err == nil
	})
	eventually(t, "the node knows that it was removed", func() bool { return !store.participating() })
	rev = c.put(store, "k", "3", "")
	awaitRevision(t, watch, rev)
	if got := c.get(store, "k"); got != "3" {
		t.Errorf("read through the others: %s", got)
	}
	if _, err := repeated(t, func() (Server, error) { return client.AddMember(c.ctx(), addr, true) }); !errors.Is(err, dcs.ErrRefused) ||
		!strings.Contains(err.Error(), "former life") {
		t.Errorf("a removed voter with its old folder was taken back: %v", err)
	}
}

func awaitRevision(t *testing.T, watch <-chan dcs.View, rev events.Revision) {
	t.Helper()
	eventually(t, "a watch goes on from one side to the other", func() bool {
		select {
		case v := <-watch:
			return v.Revision >= rev
		default:
			return false
		}
	})
}

// The leader itself can be removed, and a node that was away when it was removed learns
// it from the others.
func TestTheLeaderAndAnAbsentNodeAreRemoved(t *testing.T) {
	slow(t)
	c := newCluster(t, 4).startAll()
	client := c.operator()
	first := c.leader()
	if _, err := repeated(t, func() (Server, error) { return client.RemoveMember(c.ctx(), string(c.nodes[first].cfg.Name), false) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old leader is outside", func() bool { return !c.nodes[first].store.participating() })
	c.put(c.nodes[first].store, "k", "1", "")
	away := c.follower(c.leader(first))
	if away == first {
		away = 3 - first // any other that doesn't lead
		for away == c.leader(first) || away == first {
			away = (away + 1) % 4
		}
	}
	id := string(c.nodes[away].store.folder.id)
	c.kill(away)
	eventually(t, "the node that is away is removed", func() bool {
		_, err := client.RemoveMember(c.ctx(), id, false)
		return err == nil
	})
	c.start(away)
	eventually(t, "the node that was away learns that it was removed", func() bool {
		return !c.nodes[away].store.participating() && c.nodes[away].logs.has("this node was removed")
	})
	c.put(c.nodes[away].store, "k", "2", "")
}

// "Identities": a wiped voter takes its place again only by the operator's hand.
func TestAWipedVoterIsReplaced(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	client := c.operator()
	leader := c.leader()
	wiped := c.follower(leader)
	name, addr, old := string(c.nodes[wiped].cfg.Name), c.nodes[wiped].cfg.SelfAddr, string(c.nodes[wiped].store.folder.id)
	c.kill(wiped)
	if err := os.RemoveAll(c.nodes[wiped].cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	c.start(wiped)
	_, err := repeated(t, func() (Server, error) { return client.AddMember(c.ctx(), addr, true) })
	if !errors.Is(err, dcs.ErrRefused) || !strings.Contains(err.Error(), "regent raft member remove "+old) {
		t.Fatalf("the new server was added beside the old one: %v", err)
	}
	if _, err := repeated(t, func() (Server, error) { return client.RemoveMember(c.ctx(), name, false) }); err != nil {
		t.Fatal(err)
	}
	if got, err := repeated(t, func() (Server, error) { return client.AddMember(c.ctx(), addr, true) }); err != nil || got.ID == old || !got.Voter {
		t.Fatalf("added %+v, %v", got, err)
	}
	eventually(t, "it has its own copy", func() bool { return c.nodes[wiped].store.participating() })
	c.kill(leader)
	c.put(c.nodes[wiped].store, "k", "1", "")
}

// Removing a healthy voter while another is down would leave a cluster that can't decide.
func TestARemovalThatWouldStopTheStoreIsRefused(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	client := c.operator()
	leader := c.leader()
	down := c.follower(leader)
	other := 3 - leader - down
	c.kill(down)
	_, err := repeated(t, func() (Server, error) { return client.RemoveMember(c.ctx(), string(c.nodes[other].cfg.Name), false) })
	if !errors.Is(err, dcs.ErrRefused) || !strings.Contains(err.Error(), "stand still") {
		t.Errorf("a healthy voter was removed: %v", err)
	}
	if _, err := repeated(t, func() (Server, error) { return client.RemoveMember(c.ctx(), "nobody", false) }); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("nobody was removed: %v", err)
	}
	if _, err := repeated(t, func() (Server, error) { return client.AddMember(c.ctx(), c.net.reserve(t), true) }); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("an address where nobody listens was added: %v", err)
	}
	members, err := client.Members(c.ctx())
	if err != nil || len(members) != 3 {
		t.Fatalf("members: %+v, %v", members, err)
	}
	for _, m := range members {
		if (m.Error != nil) != (m.Name == string(c.nodes[down].cfg.Name)) {
			t.Errorf("%s: %+v, %v", m.Name, m.Status, m.Error)
		}
	}
	if _, err := repeated(t, func() (Server, error) { return client.RemoveMember(c.ctx(), string(c.nodes[down].cfg.Name), false) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := c.nodes[other].store.View(ctx, dcs.Linearizable); err != nil {
		t.Errorf("after the removal of the dead voter: %v", err)
	}
}
