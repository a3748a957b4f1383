package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded"
)

// raftMembers is what these commands need of the embedded store's client.
type raftMembers interface {
	Members(ctx context.Context) ([]embedded.Member, error)
	AddMember(ctx context.Context, addr string, voter bool) (embedded.Server, error)
	RemoveMember(ctx context.Context, which string, force bool) (embedded.Server, error)
}

// changeTimeout bounds a change of the store's members; a new one must catch up in it.
const changeTimeout = 30 * time.Second

func (a *App) raftGroup() *cobra.Command {
	raft := group(&cobra.Command{
		Use:   "raft COMMAND [ARGS]...",
		Short: "Look at the embedded store's voters, change them, recover a lost quorum",
	})
	member := group(&cobra.Command{
		Use:   "member COMMAND [ARGS]...",
		Short: "List, add and remove the members of the embedded store",
		Long: "List, add and remove the members of the embedded store. They are not the cluster's members: a witness votes\n" +
			"without PostgreSQL, and removing a PostgreSQL removes no vote.",
	})
	member.AddCommand(a.raftList(), a.raftAdd(), a.raftRemove())
	raft.AddCommand(member, a.raftRecover())
	return raft
}

// onRaft is on for commands that need the embedded store's own client.
func (a *App) onRaft(work func(ctx context.Context, s *session, m raftMembers, args []string) error) func(*cobra.Command, []string) error {
	return a.run(func(ctx context.Context, args []string) error {
		s, err := a.open(ctx, "")
		if err != nil {
			return err
		}
		defer s.close()
		m, ok := s.store.(raftMembers)
		if !ok {
			return fail("This cluster's store isn't the embedded one: it has no members here")
		}
		return work(ctx, s, m, args)
	})
}

func (a *App) raftList() *cobra.Command {
	format := "pretty"
	cmd := &cobra.Command{
		Use:   "list [OPTIONS]",
		Short: "List the voters and what they answer",
		Args:  none,
		RunE: a.onRaft(func(ctx context.Context, s *session, m raftMembers, _ []string) error {
			ctx, cancel := context.WithTimeout(ctx, viewTimeout)
			defer cancel()
			members, err := m.Members(ctx)
			if err != nil {
				return err
			}
			slices.SortFunc(members, func(x, y embedded.Member) int { return strings.Compare(x.ID, y.ID) })
			if format == "json" {
				return a.raftJSON(members)
			}
			a.raftTable(s.name, members)
			return nil
		}),
	}
	cmd.Flags().VarP(choice{&format, []string{"pretty", "json"}, "FORMAT"}, "format", "f", "output format: pretty or json")
	a.Target(cmd)
	return cmd
}

// role is what a server is, as far as it is known from outside.
func raftRole(m embedded.Member) string {
	switch {
	case m.Status != nil && m.Status.Role == embedded.RoleLeader:
		return embedded.RoleLeader
	case m.Voter:
		return embedded.RoleVoter
	default:
		return embedded.RoleNonVoter
	}
}

func (a *App) raftTable(name string, members []embedded.Member) {
	t := table{
		title:  "Raft: " + name,
		header: []string{"Member", "Id", "Address", "Role", "State", "Term", "Entry", "Age"},
		right:  []bool{false, false, false, false, false, true, true, true},
	}
	voters, answering := 0, 0
	for _, m := range members {
		row := []string{m.Name, strings.TrimPrefix(m.ID, m.Name+"-"), m.Addr, raftRole(m), "running", "", "", ""}
		if m.Voter {
			voters++
		}
		switch {
		case m.Status == nil:
			row[4] = "doesn't answer"
		default:
			if m.Voter {
				answering++
			}
			switch {
			case m.Status.Trouble != "":
				row[4] = "can't write"
			case m.Status.Slow:
				row[4] = "slow disk"
			}
			row[5], row[6] = strconv.FormatUint(m.Status.Term, 10), strconv.FormatUint(m.Status.Applied, 10)
			if m.Status.Age >= 0 && m.Status.Role != embedded.RoleLeader { // a leader knows what there is
				row[7] = m.Status.Age.Round(time.Millisecond).String()
			}
		}
		t.rows = append(t.rows, row)
	}
	a.printf("%s", t)
	needed := voters/2 + 1
	verdict := "the store works"
	if answering < needed {
		verdict = "the store stands still"
	}
	a.printf(" %d of %d voters answer, %d are needed: %s\n", answering, voters, needed, verdict)
	for _, m := range members {
		if m.Error != nil {
			a.printf(" %s: %v\n", m.Name, m.Error)
		} else if m.Status != nil && m.Status.Trouble != "" {
			a.printf(" %s: %s\n", m.Name, m.Status.Trouble)
		}
	}
}

func (a *App) raftJSON(members []embedded.Member) error {
	type row struct {
		Member  string  `json:"Member"`
		ID      string  `json:"Id"`
		Address string  `json:"Address"`
		Role    string  `json:"Role"`
		Term    uint64  `json:"Term,omitempty"`
		Entry   uint64  `json:"Entry,omitempty"`
		Age     float64 `json:"Age in seconds,omitempty"`
		Error   string  `json:"Error,omitempty"`
	}
	rows := []row{}
	for _, m := range members {
		r := row{Member: m.Name, ID: m.ID, Address: m.Addr, Role: raftRole(m)}
		if m.Status != nil {
			r.Term, r.Entry, r.Age = m.Status.Term, m.Status.Applied, m.Status.Age.Seconds()
		}
		if m.Error != nil {
			r.Error = m.Error.Error()
		} else if m.Status != nil {
			r.Error = m.Status.Trouble
		}
		rows = append(rows, r)
	}
	out, err := json.Marshal(rows)
	if err != nil {
		return fmt.Errorf("print members: %w", err)
	}
	a.println(string(out))
	return nil
}

func (a *App) raftAdd() *cobra.Command {
	var nonVoter bool
	cmd := &cobra.Command{
		Use:   "add [OPTIONS] HOST:PORT",
		Short: "Add a running node",
		Long: "Add a node that runs, agent or witness, by its raft.self_addr. It joins without a vote and gets one when it has\n" +
			"caught up. Repeating the command is harmless.",
		Args: exactlyOne("HOST:PORT"),
		RunE: a.onRaft(func(ctx context.Context, _ *session, m raftMembers, args []string) error {
			ctx, cancel := context.WithTimeout(ctx, changeTimeout)
			defer cancel()
			added, err := m.AddMember(ctx, args[0], !nonVoter)
			if err != nil {
				return raftFailure(err)
			}
			vote := "has a vote"
			if !added.Voter {
				vote = "follows without a vote"
			}
			a.printf("%s at %s is a member of the store and %s (id %s)\n", added.Name, added.Addr, vote, added.ID)
			return nil
		}),
	}
	cmd.Flags().BoolVar(&nonVoter, "non-voter", false, "give it no vote")
	a.Target(cmd)
	return cmd
}

func (a *App) raftRemove() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "remove [OPTIONS] MEMBER",
		Short: "Remove a member, by name, id or address",
		Long: "Remove a member of the store, running or not, by name, id or address. Its agent, if it runs, goes on and uses the\n" +
			"store through the others. A removal that would leave the store without a working majority is refused.",
		Args: exactlyOne("MEMBER"),
		RunE: a.onRaft(func(ctx context.Context, _ *session, m raftMembers, args []string) error {
			ctx, cancel := context.WithTimeout(ctx, changeTimeout)
			defer cancel()
			gone, err := m.RemoveMember(ctx, args[0], force)
			if err != nil {
				return raftFailure(err)
			}
			a.printf("%s at %s is no member of the store any more (id %s)\n", gone.Name, gone.Addr, gone.ID)
			return nil
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove it although the rest may be no working majority")
	a.Target(cmd)
	return cmd
}

func exactlyOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(cmd, "Missing argument '%s'.", what)
		}
		return atMostOne(cmd, args)
	}
}

// raftFailure says what to do about a change whose outcome isn't known.
func raftFailure(err error) error {
	if errors.Is(err, dcs.ErrUnknown) {
		return fmt.Errorf("%w\nIt may have happened: look with `regent raft member list`, or repeat the command, which is harmless", err)
	}
	return err
}

func (a *App) raftRecover() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "recover [OPTIONS]",
		Short: "Make this node's copy of the store the whole cluster, after a majority was lost for good",
		Long: "Make this node's copy of the store the whole cluster, after a majority of the voters was lost for good. It is the\n" +
			"last resort: it works on the raft folder of the stopped agent or witness on this machine, prints what that copy\n" +
			"holds and what may be lost, and asks for confirmation.",
		Args: none,
		RunE: a.run(func(ctx context.Context, _ []string) error { return a.recoverRaft(ctx, force) }),
	}
	cmd.Flags().BoolVar(&force, "force", false, "don't ask")
	a.fileOption(cmd)
	return cmd
}

func (a *App) recoverRaft(ctx context.Context, force bool) error {
	c, err := a.load()
	switch {
	case err != nil:
		return err
	case c.Store != "raft" || c.Raft.DataDir == "" || c.Raft.SelfAddr.String() == "" || c.Name == "":
		return fail("Give the file of this node by -c FILE: it must have name, and raft: with self_addr and data_dir")
	}
	if err := ownFolder(c.Raft.DataDir); err != nil {
		return err
	}
	held, err := embedded.Inspect(c.Raft.DataDir, c.Name)
	if err != nil {
		return err
	}
	a.printf("This node's copy of the store of cluster %s, in %s:\n", c.Scope, c.Raft.DataDir)
	holder := held.Holder
	if holder == "" {
		holder = "nobody"
	}
	a.printf("  last entry   %d of term %d (compare with the other survivors: the higher term has more, then the higher entry)\n",
		held.Index, held.Term)
	a.printf("  content      revision %d, %d keys; leader: %s\n", held.Revision, held.Keys, holder)
	for _, server := range held.Servers {
		a.printf("  member       %s at %s\n", server.Name, server.Addr)
	}
	a.printf("%s", recoverWarning)
	if !force {
		typed, err := a.ask(ctx, "Type the cluster's name to go on", "abort")
		if err != nil {
			return err
		}
		if typed != c.Scope {
			a.println("Nothing was changed")
			return errAborted
		}
	}
	got, err := embedded.Recover(c.Raft.DataDir, c.Name, c.Raft.SelfAddr.String())
	if err != nil {
		return fmt.Errorf("%w\nNothing else uses this folder: repeat the command", err)
	}
	a.printf("This node is the store now, alone (id %s). Start it. Then, for each of the others: move its raft folder away,\n"+
		"start it, and run `regent raft member add HOST:PORT` with its raft.self_addr.\n", got.ID)
	return nil
}

const recoverWarning = `
This copy becomes the whole store. That is right only if the other voters are lost for good, or stopped.
* If a majority of the old voters still runs, or comes back together with its old raft folders while this node can't
  be reached, there are two stores, and each elects a primary: two primaries, whose histories part. Stop the others and
  move their raft folders away first.
* What the others decided after this copy's last entry is forgotten: who leads, the shared settings, and in synchronous
  mode which standby has everything. A standby that was synchronous by the old list may be promoted without
  transactions that were acknowledged since. PostgreSQL's own data is not touched.
* Entries at the end of this copy that were never decided count as decided from now on.
`

// ownFolder refuses to write into another user's folder: its agent couldn't use it then.
func ownFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("raft folder: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fail("The raft folder %s belongs to the user with id %d: run this command as that user, or its agent can't use the folder",
			dir, st.Uid)
	}
	return nil
}
