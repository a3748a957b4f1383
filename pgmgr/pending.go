package pgmgr

import (
	"context"
	"encoding/json"
	"errors"
	"maps"

	"github.com/jackc/pgx/v5/pgconn"
)

// change is a parameter that waits for a restart, in Patroni's words. The new value is
// "?" where it isn't known.
type change struct {
	Old string `json:"old_value"`
	New string `json:"new_value"`
}

// changes are by parameter.
type changes map[string]change

// pendingSQL lists what waits for a restart: the value in force with its unit, and the one that
// stands last in the files. Without files, which not every role may read, it is null.
func pendingSQL(files bool) string {
	next := "NULL"
	if files {
		next = "(SELECT f.setting FROM pg_catalog.pg_file_settings f WHERE pg_catalog.lower(f.name) = s.name ORDER BY f.seqno DESC LIMIT 1)"
	}
	return `SELECT name, pg_catalog.current_setting(name), ` + next + ` FROM pg_catalog.pg_settings s WHERE ` + pendingWhere
}

// pendingWhere leaves out what the agent itself changes with a member's role.
const pendingWhere = `pending_restart
       AND name NOT IN ('hot_standby', 'restore_command', 'primary_conninfo', 'primary_slot_name')
       AND name NOT LIKE 'recovery\_target%'`

// askPending reads the changes that wait for a restart.
func askPending(ctx context.Context, conn *pgconn.PgConn) (changes, error) {
	result := conn.ExecParams(ctx, pendingSQL(true), nil, nil, nil, nil).Read()
	if result.Err != nil && sqlCode(result.Err) != "" {
		result = conn.ExecParams(ctx, pendingSQL(false), nil, nil, nil, nil).Read()
	}
	if result.Err != nil {
		return nil, result.Err
	}
	out := changes{}
	for _, row := range result.Rows {
		if len(row) != 3 {
			return nil, errors.New("read pg_settings: not three columns")
		}
		c := change{Old: string(row[1]), New: "?"}
		if row[2] != nil {
			c.New = string(row[2])
		}
		out[string(row[0])] = c
	}
	return out, nil
}

// and adds what a standby had to raise. The file's word counts where both have one.
func (c changes) and(raised changes) changes {
	out := changes{}
	maps.Copy(out, raised)
	maps.Copy(out, c)
	return out
}

// document is what is published; nil when nothing waits.
func (c changes) document() json.RawMessage {
	if len(c) == 0 {
		return nil
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil // strings always can be encoded
	}
	return b
}
