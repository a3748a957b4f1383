package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
)

// SlotName is the replication slot of a member: its name in lower case, with "-"
// and "." as "_", any other character outside a–z, 0–9 and _ as "u" and its code
// point in at least four decimal digits, cut to 63 bytes. Two names can give one
// slot.
func SlotName(member events.NodeName) string {
	var b strings.Builder
	for _, r := range strings.ToLower(string(member)) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			b.WriteRune(r)
		case r == '-', r == '.':
			b.WriteByte('_')
		default:
			fmt.Fprintf(&b, "u%04d", r)
		}
	}
	s := b.String()
	return s[:min(len(s), 63)]
}

// SyncSlots brings the physical slots of other members in line on a primary: those
// of want that are missing are created, reserving WAL from now on, and those of
// drop are dropped if they are physical, inactive and not wanted. Slots named in
// neither list are never touched. On a replica it does nothing.
//
// It goes on after the failure of one slot; the error joins them all.
func (m *Manager) SyncSlots(ctx context.Context, want, drop []string) (created, dropped []string, err error) {
	const op = "synchronize slots"
	err = m.withLocal(ctx, op, func(conn *pgconn.PgConn) error {
		recovering, err := isRecovering(ctx, conn)
		if err != nil || recovering {
			return err
		}
		have, err := column(ctx, conn, "SELECT slot_name FROM pg_catalog.pg_replication_slots")
		if err != nil {
			return fmt.Errorf("list slots: %w", err)
		}
		var errs []error
		for _, name := range want {
			if slices.Contains(have, name) || slices.Contains(created, name) {
				continue
			}
			_, err := row(ctx, conn, "SELECT pg_catalog.pg_create_physical_replication_slot($1, true)", name)
			if err != nil && sqlCode(err) != codeDuplicateObject {
				errs = append(errs, fmt.Errorf("create slot %s: %w", name, err))
				continue
			}
			created = append(created, name)
		}
		for _, name := range drop {
			if slices.Contains(want, name) || !slices.Contains(have, name) {
				continue
			}
			gone, err := column(ctx, conn, `SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
				WHERE slot_name = $1 AND slot_type = 'physical' AND NOT active`, name)
			switch {
			case err != nil && sqlCode(err) != codeObjectInUse && sqlCode(err) != codeUndefinedObject:
				errs = append(errs, fmt.Errorf("drop slot %s: %w", name, err))
			case err == nil && len(gone) > 0:
				dropped = append(dropped, name)
			}
		}
		return errors.Join(errs...)
	})
	return created, dropped, err
}
