package live

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Vocabulary writes the document of the language, from the table that is the language.
func Vocabulary(w io.Writer) error {
	scripts, err := Scripts()
	if err != nil {
		return err
	}
	tell(w, "%s", vocabularyHead)
	for _, part := range []struct {
		kind  Kind
		title string
	}{
		{Do, "do: what is done"},
		{WaitFor, "wait for: what must come, within its deadline"},
		{Expect, "expect: what must hold now, or for a time"},
		{Allow, "allow: what belongs to the story"},
	} {
		tell(w, "\n## %s\n\n| Form | Meaning |\n|---|---|\n", part.title)
		for _, v := range Verbs() {
			if !slices.Contains(v.Kinds, part.kind) || v.bound != nil {
				continue
			}
			doc := v.Doc
			if v.Needs != NoNeed && v.Needs != Launcher {
				doc += fmt.Sprintf(" (Needs %s.)", v.Needs)
			}
			tell(w, "| `%s %s` | %s |\n", part.kind, v.Form, doc)
		}
	}
	tell(w, "\n## expect: figures, which the judge takes over the whole story\n\nTheir place in the script doesn't matter.\n\n| Form | Meaning |\n|---|---|\n")
	for _, v := range Verbs() {
		if v.bound != nil {
			tell(w, "| `expect %s` | %s |\n", v.Form, v.Doc)
		}
	}
	tell(w, "\n## The words in capitals\n\n| Word | Stands for |\n|---|---|\n")
	for _, a := range Arguments() {
		tell(w, "| `%s` | %s |\n", a.Name, a.Doc)
	}
	tell(w, "\n## The scripts\n\n| Script | Row | Where | Scenario |\n|---|---|---|---|\n")
	for _, s := range scripts {
		tell(w, "| [%s](../../chaos/live/scenarios/%s.txt) | %s | %s | %s |\n", s.Name, s.Name, s.Row, s.English.Where, strings.TrimSuffix(s.English.Scenario, "."))
	}
	return nil
}

const vocabularyHead = `<!-- Generated from chaos/live by ` + "`make generate`" + `; do not edit. -->

# Scenario scripts

A row of the [failure table](../failure-table.md) is a text file in ` + "`chaos/live/scenarios`" + `: a header, then a line a step. It is
replayed on three real members, with a writer that inserts a numbered row every 5 ms, two more writers on every
member's host (one knows that member's PostgreSQL only, the other all members; they are cut off with the host), and a
watcher that asks each member for its role more than a hundred times a second:

` + "```" + `
row       3
where     replica
scenario  agent killed (SIGKILL)
action    nothing
asserts   PostgreSQL goes on streaming

do        kill agent of replica
expect    replica streams                 for ttl+2s
do        start agent of replica
wait for  the store names replica         within 15s
expect    server of replica is the one it was
expect    outage at most 1s
` + "```" + `

` + "`regent-chaos row 3 --store etcd3 --keep`" + ` replays it and leaves the members' folders to look at; a broken row leaves them
anyway. A new file needs a rebuilt ` + "`regent-chaos`" + `, nothing else.

* The header: ` + "`row`, `where`, `scenario`, `action`, `asserts`" + `, and where they apply the document's cells ` + "`故障位置`, `场景`, `动作`" + `;
  ` + "`fencing off`" + `; ` + "`settings NAME=VALUE…`" + `, which are in force before the story begins; ` + "`stores raft etcd3 consul`" + `, all when it isn't said.
* A line: ` + "`[on STORE,STORE] do|wait for|expect|allow` words `[for SPAN] [within SPAN]`" + `. A ` + "`wait for`" + ` needs its ` + "`within`" + `;
  ` + "`for`" + ` says how long an expectation must hold. ` + "`#`" + ` begins a comment. What is wrong is named with its line.
* After the last step the cluster must be whole again, by itself, within 40 s and two leases.
* Without a word in the script: no acknowledged row may be lost, no two members may be out of recovery at once (except
  for 50 ms after the thaw of a whole node), every journal must replay to the same decisions and break no invariant, and no
  timeline may have two writers. A row with nobody watching closely enough is replayed, and fails in the end.
`
