package agent_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/pgmgr/pgtest"
)

// killedAt kills the agent, and nothing else, the moment it says that; then starts it
// again. PostgreSQL, its keeper and running tools stay behind, as after any crash.
func (p *process) killedAt(sign string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(time.Millisecond); !strings.Contains(p.log.String(), sign); <-tick.C {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s never said %q", p.file, sign)
		}
	}
	signal(p.t, p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
	p.start()
}

// primaryOf is the one member that the health check of a primary finds.
func primaryOf(t *testing.T, all []*process) (primary *process) {
	t.Helper()
	all[0].eventually("one primary, and all others streaming from it", func() string {
		var found []*process
		for _, p := range all {
			if code, _ := p.get("/primary"); code == http.StatusOK {
				found = append(found, p)
			} else if _, body := p.get("/patroni"); !strings.Contains(body, `"replication_state": "streaming"`) {
				return p.file + ": " + body
			}
		}
		if len(found) != 1 {
			return fmt.Sprintf("%d primaries", len(found))
		}
		primary = found[0]
		return ""
	})
	return primary
}

func (p *process) switchover() {
	p.t.Helper()
	name := fmt.Sprintf(`{"leader": %q}`, p.name())
	resp, err := http.Post(p.url("/switchover"), "application/json", strings.NewReader(name))
	if err == nil { // the agent may be killed before it answers
		_ = resp.Body.Close()
	}
}

func (p *process) name() string {
	b, err := os.ReadFile(p.file)
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "name: ")
	name, _, _ := strings.Cut(rest, "\n")
	return name
}

// TestKilledInTheMiddle: the agent is killed in the middle of all that takes time, and
// started again. Nothing needs a hand, and no committed row is lost.
func TestKilledInTheMiddle(t *testing.T) {
	needsPostgres(t)
	all := partners(t, "pg01", "pg02", "pg03")
	for _, p := range all[1:] {
		// Only the first may make the cluster, so that it is known whom to kill when.
		p.edit("bootstrap:\n  dcs: {ttl: 3, loop_wait: 1, retry_timeout: 1}\n  initdb: [encoding: UTF8, locale: C]\n", "")
	}
	all[0].edit("retry_timeout: 1}", "retry_timeout: 1, postgresql: {use_pg_rewind: true}}")
	for _, p := range all {
		p.start()
	}
	all[0].killedAt("step: initdb")
	all[1].killedAt("bootstrap from leader 'pg01' in progress")
	primary := primaryOf(t, all)
	if out := primary.sql("create table r (i int)"); out != "" {
		t.Fatal(out)
	}
	rows, up, began := 0, all, time.Now()
	// A row counts when its commit was acknowledged; an agent that was killed while it
	// handed over may well go on with that.
	insert := func() {
		t.Helper()
		all[0].eventually("a write", func() string {
			primary = primaryOf(t, up)
			if out := primary.sql(fmt.Sprintf("insert into r values (%d) returning i", rows)); out != fmt.Sprint(rows) {
				return out
			}
			return ""
		})
		rows++
		t.Logf("row %d after %s", rows, time.Since(began).Round(time.Millisecond))
	}
	insert()

	// The old primary in the middle of handing over, then the new one in that of taking.
	for _, sign := range []string{"Demoting self", "promot"} {
		victims := []*process{primary}
		if sign == "promot" {
			victims = others(all, primary)
		}
		for _, v := range victims {
			v.log.forget()
		}
		var asked sync.WaitGroup
		asked.Go(primary.switchover)
		anyKilledAt(t, victims, sign)
		asked.Wait()
		insert()
	}

	// A rewind: the old primary wrote alone what nobody else has.
	old := primary
	up = others(all, old)
	end(t, old, syscall.SIGTERM)
	insert()
	writeAlone(t, old)
	old.start()
	old.killedAt("running pg_rewind")
	up = all
	insert()

	if got := primary.sql("select count(distinct i) from r where i >= 0"); got != fmt.Sprint(rows) {
		t.Errorf("%s rows of %d", got, rows)
	}
	if got := primary.sql("select count(*) from r where i < 0"); got != "0" {
		t.Errorf("%s rows that were written alone", got)
	}
	for _, p := range append(others(all, primary), primary) {
		end(t, p, syscall.SIGTERM)
	}
}

func others(all []*process, but *process) (rest []*process) {
	for _, p := range all {
		if p != but {
			rest = append(rest, p)
		}
	}
	return rest
}

// anyKilledAt kills whichever of the agents says that first.
func anyKilledAt(t *testing.T, victims []*process, sign string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		for _, v := range victims {
			if strings.Contains(v.log.String(), sign) {
				v.killedAt(sign)
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody said %q", sign)
		}
	}
}

// writeAlone lets a stopped member's data diverge, as a server does that was started by
// hand.
func writeAlone(t *testing.T, p *process) {
	t.Helper()
	cmd := exec.Command(filepath.Join(pgtest.BinDir(t), "postgres"), "--single", "-D", p.data, "-c", "fsync=off", "postgres")
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader("insert into r select -g from generate_series(1, 1000) g\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("write alone: %v\n%s", err, out)
	}
}

// TestDataThatBelongsElsewhere: another cluster's, and another version's.
func TestDataThatBelongsElsewhere(t *testing.T) {
	needsPostgres(t)
	all := partners(t, "pg01", "pg02", "pg03")
	for _, p := range all {
		p.start()
	}
	primary := primaryOf(t, all)
	p := others(all, primary)[0]
	end(t, p, syscall.SIGTERM)

	version := filepath.Join(p.data, "PG_VERSION")
	if err := os.WriteFile(version, []byte("11\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.says("it is of PostgreSQL 11, the installed binaries are 15: set postgresql.bin_dir to those of 11")
	if err := os.WriteFile(version, []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.streams() // by itself, once it is mended
	end(t, p, syscall.SIGTERM)

	foreign := filepath.Join(p.dir, "foreign")
	if out, err := command(filepath.Join(pgtest.BinDir(t), "initdb"), "-D", foreign, "-A", "trust", "--no-sync"); err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	p.edit("data_dir: "+p.data, "data_dir: "+foreign)
	p.refused("system ID mismatch, node "+p.name()+" belongs to a different cluster", "operations/errors")
	for _, other := range append(others(others(all, primary), p), primary) {
		end(t, other, syscall.SIGTERM)
	}
}

// TestAnotherSecretIsNamed on both sides; the cluster goes on without the member.
func TestAnotherSecretIsNamed(t *testing.T) {
	needsPostgres(t)
	all := partners(t, "pg01", "pg02", "pg03")
	for _, p := range all {
		p.start()
	}
	primary := primaryOf(t, all)
	p := others(all, primary)[0]
	end(t, p, syscall.SIGTERM)
	p.edit("password: secret}\nbootstrap", "password: other}\nbootstrap")
	p.start()
	p.says("the cluster secret differs")
	primary.leads()
	end(t, p, syscall.SIGTERM)
	p.edit("password: other}\nbootstrap", "password: secret}\nbootstrap")
	p.start()
	primary = primaryOf(t, all)
	for _, p := range append(others(all, primary), primary) {
		end(t, p, syscall.SIGTERM)
	}
}
