package pgmgr

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgregent/regent/events"
)

func TestATimelineHasBegunWhenItsFirstRecordIsThere(t *testing.T) {
	const page, segment = 8192, 1 << 20
	control := ControlData{WALBlockSize: page, WALSegmentSize: segment}
	birth := events.LSN(3*segment + 2*page + 256)
	cfg := Config{DataDir: t.TempDir()}
	wal := filepath.Join(cfg.DataDir, "pg_wal")
	if err := os.Mkdir(wal, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(wal, control.walFile(5, birth))
	lay := func(address uint64, length uint32) {
		content := make([]byte, segment)
		binary.NativeEndian.PutUint64(content[2*page+8:], address)
		binary.NativeEndian.PutUint32(content[2*page+256:], length)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, birth events.LSN, control ControlData, want bool) {
		t.Helper()
		if got := cfg.begun(5, birth, control); got != want {
			t.Errorf("%s: begun %v, want %v", what, got, want)
		}
	}
	want("no file", birth, control, false)
	address := uint64(birth) - 256
	lay(address, 114)
	want("the record is there", birth, control, true)
	want("a server that doesn't say its sizes", birth, ControlData{}, false)
	want("behind the page's header", birth-256+24, control, false)
	lay(address, 0)
	want("zeros where the record should be", birth, control, false)
	lay(address-segment, 114)
	want("a recycled segment", birth, control, false)
	if err := os.Truncate(path, 2*page); err != nil {
		t.Fatal(err)
	}
	want("a short file", birth, control, false)
}
