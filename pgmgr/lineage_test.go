package pgmgr

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgregent/regent/events"
)

// historyOf makes a lineage: the positions where timelines 1, 2, … were left.
func historyOf(forks ...events.LSN) lineage {
	var l lineage
	for i, at := range forks {
		l = append(l, events.HistoryLine{Timeline: events.Timeline(i + 1), LSN: at})
	}
	return l
}

func TestTimelinesMustBeTheUpstreamsOrItsAncestors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		local, upstream events.Timeline
		// files are the history files in our pg_wal.
		files   map[events.Timeline]string
		lineage lineage
		want    string // part of the reason; empty: no conflict
	}{
		"the same":             {2, 2, map[events.Timeline]string{2: "1\t0/10\n"}, historyOf(0x10), ""},
		"the same, no file":    {2, 2, nil, historyOf(0x10), ""},
		"an ancestor":          {2, 4, map[events.Timeline]string{2: "1\t0/10\n"}, historyOf(0x10, 0x20, 0x30), ""},
		"the first":            {1, 2, nil, historyOf(0x10), ""},
		"ahead":                {3, 2, nil, historyOf(0x10), "doesn't have"},
		"a side branch":        {2, 3, nil, lineage{{Timeline: 1, LSN: 0x10}}, "isn't an ancestor"},
		"same number, forked":  {2, 2, map[events.Timeline]string{2: "1\t0/11\n"}, historyOf(0x10), "branched off elsewhere"},
		"ancestor, forked":     {2, 3, map[events.Timeline]string{2: "1\t0/11\n"}, historyOf(0x10, 0x20), "branched off elsewhere"},
		"fetched history":      {1, 2, map[events.Timeline]string{2: "1\t0/10\n"}, historyOf(0x10), ""},
		"newer fetched":        {1, 3, map[events.Timeline]string{2: "1\t0/10\n", 3: "1\t0/10\n2\t0/20\n"}, historyOf(0x10, 0x20), ""},
		"stray, too new":       {1, 1, map[events.Timeline]string{2: "1\t0/10\n"}, nil, "00000002.history"},
		"stray, side branch":   {1, 3, map[events.Timeline]string{2: "1\t0/10\n"}, lineage{{Timeline: 1, LSN: 0x10}}, "00000002.history"},
		"stray, other fork":    {1, 2, map[events.Timeline]string{2: "1\t0/11\n"}, historyOf(0x10), "00000002.history"},
		"stray, unreadable":    {1, 2, map[events.Timeline]string{2: "nonsense"}, historyOf(0x10), "00000002.history"},
		"unreadable, our own":  {2, 2, map[events.Timeline]string{2: "nonsense"}, historyOf(0x10), ""},
		"stray above the same": {2, 2, map[events.Timeline]string{3: "1\t0/10\n2\t0/20\n"}, historyOf(0x10), "00000003.history"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{DataDir: t.TempDir()}
			wal := filepath.Join(cfg.DataDir, "pg_wal")
			if err := os.Mkdir(wal, 0o700); err != nil {
				t.Fatal(err)
			}
			for tl, content := range c.files {
				if err := os.WriteFile(filepath.Join(wal, historyFile(tl)), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			strays, err := cfg.newerHistories(c.local)
			if err != nil {
				t.Fatal(err)
			}
			local := localPosition{timeline: c.local, strays: strays}
			got := lineageConflict(cfg, local, upstreamPosition{identity: identity{timeline: c.upstream}, lineage: c.lineage})
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("conflict %q, want %q", got, c.want)
			}
		})
	}
}
