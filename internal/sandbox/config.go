package sandbox

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// configuration writes a node's patroni.yml. It sets what a sandbox needs and leaves the
// rest, durability above all, at PostgreSQL's defaults.
func (n *Node) configuration(store, target string) string {
	o := n.c.opt
	if store == "" {
		store = n.RaftSection()
	}
	if target != "" {
		target = "  dcs_target:\n    " + strings.ReplaceAll(strings.TrimSpace(target), "\n", "\n    ") + "\n"
	}
	return fmt.Sprintf(`scope: %[1]s
name: %[2]s

restapi:
  listen: %[3]s
  connect_address: %[3]s

%[4]s

bootstrap:
  dcs:
    ttl: %[7]s
    loop_wait: %[8]s
    retry_timeout: %[9]s
    maximum_lag_on_failover: 1048576
%[13]s    postgresql:
      use_pg_rewind: true
      use_slots: true
      remove_data_directory_on_rewind_failure: true
      remove_data_directory_on_diverged_timelines: true
      parameters:
        shared_buffers: 32MB
        max_wal_size: 256MB  # recycled WAL is kept up to this, and a rewind copies all of it
        dynamic_shared_memory_type: mmap  # a killed server leaves nothing in /dev/shm
        log_line_prefix: '%%m [%%p] '
  initdb:
  - encoding: UTF8
  - locale: C
  - data-checksums
%[18]s
postgresql:
  listen: %[10]s
  connect_address: %[10]s
  data_dir: %[16]s
  bin_dir: %[11]s
  pg_hba:
  - local all all scram-sha-256
  - host all all %[15]s scram-sha-256
  - host replication all %[15]s scram-sha-256
  authentication:
    superuser: {username: postgres, password: "%[6]s"}
    replication: {username: replicator, password: "%[6]s"}
  parameters:
    unix_socket_directories: %[5]s/run
%[12]s%[19]s
regent:
  run_dir: %[5]s/run
  journal:
    dir: %[17]s
%[14]s`,
		o.Scope, n.name, at(n.machine, n.restPort), strings.TrimSpace(store), n.dir, n.c.secret,
		seconds(o.TTL), seconds(o.LoopWait), seconds(o.RetryTimeout), at(n.machine, n.port), o.PGBin, n.patroniSettings(), o.syncSetting(), target,
		n.machine.Clients(), n.DataDir(), n.JournalDir(), n.walSetting(), n.copySetting())
}

// syncSetting is said only where it is wanted.
func (o Options) syncSetting() string {
	if !o.Sync {
		return ""
	}
	return "    synchronous_mode: true\n"
}

// walSetting has initdb put the WAL on a disk of its own, in segments small enough for it;
// copySetting has a base backup do the same.
func (n *Node) walSetting() string {
	if n.walDir == "" {
		return ""
	}
	return "  - wal-segsize: 1\n  - waldir: " + n.walDir + "\n"
}

func (n *Node) copySetting() string {
	if n.walDir == "" {
		return ""
	}
	return "  basebackup:\n  - waldir: " + n.walDir + "\n"
}

// NameStores writes the node's file anew, with these sections for the store and for the one
// that the cluster is to be moved to; an empty one is the embedded store, or no target.
func (n *Node) NameStores(store, target string) error {
	if err := os.WriteFile(n.ConfigFile(), []byte(n.configuration(store, target)), 0o600); err != nil {
		return fmt.Errorf("write the file of %s: %w", n.name, err)
	}
	return nil
}

// RaftSection makes the nodes the embedded store of each other.
func (n *Node) RaftSection() string {
	var partners []string
	for _, other := range n.c.nodes {
		if other != n {
			partners = append(partners, at(other.machine, other.raftPort))
		}
	}
	return fmt.Sprintf("raft:\n  self_addr: %s\n  partner_addrs: [%s]\n  data_dir: %s\n  password: \"%s\"\n",
		at(n.machine, n.raftPort), strings.Join(partners, ", "), n.RaftDir(), n.c.secret)
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'g', -1, 64) }
