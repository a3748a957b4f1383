package live

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/pgregent/regent/internal/sandbox"
)

// strain is one fault of a storm: how it begins and ends, in the words of the scripts, with X for
// the member and Y for another one.
type strain struct {
	begin, end string
	// hard: a primary that it hits may lose what no standby had, in asynchronous mode.
	hard bool
	// only are the members that it makes sense for; none: any.
	only []string
	// needs is what the cluster must have.
	needs Need
}

// strains are all of them. Each leaves the cluster able to heal by itself once it has ended.
func strains() []strain {
	return []strain{
		{begin: "kill agent of X", end: "start agent of X", hard: true},
		{begin: "kill keeper of X", hard: true},
		{begin: "crash postgres of X", hard: true},
		{begin: "stop postgres of X"},
		{begin: "kill node of X", end: "start agent of X", hard: true},
		{begin: "stop agent of X", end: "start agent of X", hard: true},
		{begin: "freeze agent of X", end: "thaw agent of X", hard: true},
		{begin: "freeze keeper of X", end: "thaw keeper of X", hard: true},
		{begin: "freeze postmaster of X", end: "thaw postmaster of X", hard: true},
		{begin: "freeze node of X", end: "thaw node of X", hard: true},
		{begin: "ask for a switchover from primary to X", only: []string{"replica", "other"}},
		{begin: "stop the store", end: "start the store", hard: true, only: []string{""}},
		{begin: "move the leader of the store", only: []string{""}, hard: true, needs: Servers},
		{begin: "lose a minority of the store", end: "restore the store", only: []string{""}, needs: Servers},
		{begin: "lose a majority of the store", end: "restore the store", hard: true, only: []string{""}, needs: Servers},
		{begin: "cut X from store", end: "heal X", hard: true, needs: Cables},
		{begin: "cut X from peers", end: "heal X", hard: true, needs: Cables},
		{begin: "cut X from everything", end: "heal X", hard: true, needs: Cables},
		{begin: "cut what X sends to Y", end: "heal X", hard: true, needs: Cables},
		{begin: "slow X to the store by 40ms losing 3 percent", end: "heal X", hard: true, needs: Cables},
	}
}

// members are those that strains hit; the store is nobody, "".
var members = []string{"primary", "replica", "other"}

// gust writes a script of up to three faults that overlap. The same seed and number write the
// same, on clusters that have the same.
func gust(seed, number uint64, store sandbox.StoreKind, synchronous bool, lacks func(Need) error) string {
	rng := rand.New(rand.NewPCG(seed, number))
	g := &draft{rng: rng, free: slices.Clone(members), store: store}
	var out strings.Builder
	settings := ""
	if synchronous {
		settings = "settings  synchronous_mode=true\n"
	}
	fmt.Fprintf(&out, "row       storm\nwhere     everywhere\nscenario  gust %d of storm %d\naction    –\n"+
		"asserts   never two primaries, and it heals by itself\n%sstores    %s\n\n", number, seed, settings, store)
	for range 1 + rng.IntN(3) {
		g.blow(lacks)
	}
	if g.mayLose && !synchronous {
		fmt.Fprintln(&out, "allow     lost rows")
	}
	for i, s := range g.began {
		if i > 0 {
			fmt.Fprintf(&out, "do        wait %s\n", g.span(0.6))
		}
		fmt.Fprintf(&out, "do        %s\n", s)
	}
	rng.Shuffle(len(g.ends), func(i, j int) { g.ends[i], g.ends[j] = g.ends[j], g.ends[i] })
	for i, s := range g.ends {
		limit := 0.6
		if i == 0 {
			limit = 2.5 // so that the lease ends, often
		}
		fmt.Fprintf(&out, "do        wait %s\ndo        %s\n", g.span(limit), s)
	}
	fmt.Fprint(&out, "wait for  the cluster is whole                    within 60s+2ttl\nexpect    two primaries at most 0s\n")
	return out.String()
}

// draft collects the faults of a gust.
type draft struct {
	rng         *rand.Rand
	store       sandbox.StoreKind
	free        []string // whom nothing has hit yet
	calm        bool     // the store was hit already
	began, ends []string
	mayLose     bool
}

// blow adds a fault, if one is found for whom is left.
func (g *draft) blow(lacks func(Need) error) {
	all := strains()
	for _, i := range g.rng.Perm(len(all)) {
		s := all[i]
		if s.needs != NoNeed && lacks(s.needs) != nil {
			continue
		}
		if len(s.only) == 1 && s.only[0] == "" { // the store
			// The embedded store is in the agents of both replicas.
			if g.calm || g.store == sandbox.RaftStore && len(g.free) < len(members) {
				continue
			}
			if g.calm = true; g.store == sandbox.RaftStore {
				g.free = nil
			}
			g.add(s, "", "")
			return
		}
		var fit []string
		for _, m := range g.free {
			if len(s.only) == 0 || slices.Contains(s.only, m) {
				fit = append(fit, m)
			}
		}
		if len(fit) == 0 {
			continue
		}
		x := fit[g.rng.IntN(len(fit))]
		others := slices.DeleteFunc(slices.Clone(members), func(m string) bool { return m == x })
		g.free = slices.DeleteFunc(g.free, func(m string) bool { return m == x })
		if strings.HasPrefix(s.begin, "ask for a switchover") {
			// Who was primary isn't any more, perhaps: nothing else is to hit it under that name.
			g.free = slices.DeleteFunc(g.free, func(m string) bool { return m == "primary" })
		}
		g.add(s, x, others[g.rng.IntN(len(others))])
		return
	}
}

func (g *draft) add(s strain, x, y string) {
	words := strings.NewReplacer("X", x, "Y", y)
	g.began = append(g.began, words.Replace(s.begin))
	if s.end != "" {
		g.ends = append(g.ends, words.Replace(s.end))
	}
	// With two faults at once, whoever is hit may be the primary by then.
	g.mayLose = g.mayLose || s.hard && x != "replica" && x != "other" || len(g.began) > 1
}

// span draws a time between nothing and so many leases.
func (g *draft) span(leases float64) string {
	return fmt.Sprintf("%.2fttl", 0.01+g.rng.Float64()*leases)
}
