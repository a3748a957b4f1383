package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

// sample writes a journal of ten facts and returns its only segment.
func sample(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	j, _ := start(t, dir, Options{})
	for n := 1; n <= 10; n++ {
		mustAppend(t, j.Journal, fact(n))
	}
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, segmentName(1)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// reopen puts a segment into a fresh folder, opens it, appends one fact, and returns
// what was recovered. It fails unless the journal is sound afterwards.
func reopen(t *testing.T, segment []byte) (Recovered, string) {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "j")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, segmentName(1)), segment, 0o600); err != nil {
		t.Fatal(err)
	}
	j, recovered := start(t, dir, Options{})
	if got := mustAppend(t, j.Journal, fact(99)); got <= recovered.LastSeq {
		t.Fatalf("number %d is given a second time, the last was %d", got, recovered.LastSeq)
	}
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, dir)
	return recovered, dir
}

// wantPrefix checks that the recovered records are the first of the sample's.
func wantPrefix(t *testing.T, what string, records []Record, least int) {
	t.Helper()
	if len(records) < least {
		t.Fatalf("%s: %d records, want at least %d", what, len(records), least)
	}
	for i, r := range records {
		if r.Seq != uint64(i+1) || !bytes.Equal(r.Payload, fact(i+1).Payload) {
			t.Fatalf("%s: record %d is %+v", what, i+1, r)
		}
	}
}

func TestASegmentCutAtAnyByteIsALegalStart(t *testing.T) {
	whole := sample(t)
	last := -1
	for n := range len(whole) + 1 {
		recovered, _ := reopen(t, whole[:n])
		what := fmt.Sprintf("cut at byte %d", n)
		wantPrefix(t, what, recovered.Records, max(last, 0))
		last = len(recovered.Records)
		if n > headerSize && len(recovered.SetAside) > 0 {
			t.Fatalf("%s: a torn tail was set aside as if it were worth keeping", what)
		}
	}
	if last != 10 {
		t.Fatalf("the whole segment gave %d records, want 10", last)
	}
}

func TestAnyFlippedBitIsFoundAndCostsNoRecordBeforeIt(t *testing.T) {
	whole := sample(t)
	s, err := scanBytes(t, whole)
	if err != nil {
		t.Fatal(err)
	}
	const victim = 5 // the snapshot is entry 0, so this is fact 5
	from, to := s.records[victim].Offset, s.records[victim+1].Offset
	for bit := from * 8; bit < to*8; bit++ {
		damaged := slices.Clone(whole)
		damaged[bit/8] ^= 1 << (bit % 8)
		what := fmt.Sprintf("bit %d of byte %d", bit%8, bit/8)
		recovered, dir := reopen(t, damaged)
		if len(recovered.Records) != victim-1 {
			t.Fatalf("%s: %d records, want %d", what, len(recovered.Records), victim-1)
		}
		wantPrefix(t, what, recovered.Records, victim-1)
		if len(recovered.SetAside) != 1 {
			t.Fatalf("%s: set aside %v, want one file", what, recovered.SetAside)
		}
		aside, err := os.ReadFile(recovered.SetAside[0])
		if err != nil || !bytes.Equal(aside, damaged[from:]) {
			t.Fatalf("%s: what was set aside isn't the rest of the segment: %v", what, err)
		}
		if recovered.LastSeq != 10 {
			t.Fatalf("%s: last number %d, want that of the set-aside records, 10", what, recovered.LastSeq)
		}
		if report := mustVerify(t, dir); len(report.Gaps) != 1 || report.Segments[1].Epoch != 2 {
			t.Fatalf("%s: %+v, want a new epoch after the damage", what, report)
		}
	}
}

func scanBytes(t *testing.T, b []byte) (scan, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), segmentName(1))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return scan{}, err
	}
	return scanSegment(path)
}

func TestVerifyNamesTheDamageBeforeItIsRepaired(t *testing.T) {
	whole := sample(t)
	s, err := scanBytes(t, whole)
	if err != nil {
		t.Fatal(err)
	}
	damaged := slices.Clone(whole)
	damaged[s.records[5].Offset+20] ^= 4
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, segmentName(1)), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	report, err := Verify(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%s: the record's checksum doesn't match at byte %d", segmentName(1), s.records[5].Offset)
	if len(report.Problems) != 1 || report.Problems[0] != want {
		t.Fatalf("problems %q, want %q", report.Problems, want)
	}
	damages := 0
	for _, err := range Read(dir) {
		if err != nil {
			damages++
		}
	}
	if damages != 1 {
		t.Fatalf("a reader was told of %d damages, want 1", damages)
	}
}

func TestEveryFolderIsALegalStart(t *testing.T) {
	whole := sample(t)
	for name, files := range map[string]map[string][]byte{
		"nothing":                {},
		"an empty segment":       {segmentName(1): nil},
		"zeroes":                 {segmentName(1): make([]byte, 4096)},
		"text":                   {segmentName(1): []byte("not a journal at all, but long enough to have a header")},
		"a header only":          {segmentName(1): appendHeader(nil, 1, 1)},
		"zeroes after records":   {segmentName(1): append(slices.Clone(whole), make([]byte, 512)...)},
		"a bad segment at last":  {segmentName(1): whole, segmentName(2): []byte("torn")},
		"a bad segment at first": {segmentName(1): []byte("x"), segmentName(7): whole},
		"a later format":         {segmentName(1): laterFormat()},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range files {
				if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			j, recovered := start(t, dir, Options{})
			wantPrefix(t, name, recovered.Records, 0)
			mustAppend(t, j.Journal, fact(1))
			mustSync(t, j.Journal)
			if err := j.stop(); err != nil {
				t.Fatal(err)
			}
			if report, err := Verify(dir); err != nil || len(report.Segments) == 0 {
				t.Fatalf("%+v, %v", report, err)
			}
			_, again := start(t, dir, Options{})
			if again.LastSeq != recovered.LastSeq+1 {
				t.Fatalf("recovered up to %d, want %d", again.LastSeq, recovered.LastSeq+1)
			}
		})
	}
}

func laterFormat() []byte {
	b := appendHeader(nil, 1, 1)
	b[8] = formatVersion + 1
	return b
}

func TestRubbleIsBounded(t *testing.T) {
	dir := t.TempDir()
	for n := range maxAside + 3 {
		name := filepath.Join(dir, segmentName(uint64(n+1))+asideMark+"32")
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, dir, Options{})
	left, err := filepath.Glob(filepath.Join(dir, "*"+asideMark+"*"))
	if err != nil || len(left) != maxAside {
		t.Fatalf("%d files are left, want %d (%v)", len(left), maxAside, err)
	}
	if filepath.Base(left[0]) != segmentName(4)+asideMark+"32" {
		t.Fatalf("the oldest left is %s; the oldest must go first", left[0])
	}
}

// FuzzDecode feeds arbitrary bytes to the record and segment readers: as a frame, as the
// body of a frame whose checksum is right, and as a segment.
func FuzzDecode(f *testing.F) {
	folded := decision(4)
	folded.Seq, folded.Covers = 412, 400
	f.Add(appendFrame(nil, fact(1)))
	f.Add(appendFrame(appendHeader(nil, 1, 1), decision(2)))
	f.Add(appendFrame(appendFrame(appendHeader(nil, 7, 3), fact(3)), folded))
	f.Add(appendFrame(nil, folded)[frameHeader:])
	f.Add([]byte(`{"seq":1,"epoch":1,"kind":"a\u0041","at":-5,"wall":0,"boot":"\"","derived":true}`))
	f.Add([]byte(`{"seq":18446744073709551615,"covers":2,"epoch":0,"kind":"x","at":1,"wall":1,"boot":"","payload":[{}]}`))
	f.Add([]byte(`{"seq":01,"epoch":1,"kind":"x","at":1,"wall":1,"boot":""}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame := func(b []byte) {
			r, n, err := decodeFrame(b)
			if err != nil {
				return
			}
			if n <= frameHeader || n > len(b) {
				t.Fatalf("a frame of %d bytes in %d", n, len(b))
			}
			if r.First() > r.Seq {
				t.Fatalf("%+v stands for numbers from %d on", r, r.First())
			}
			if checkRecord(r) == nil {
				again, _, err := decodeFrame(appendFrame(nil, r))
				if err != nil || again.Seq != r.Seq || again.Kind != r.Kind || again.At != r.At || !bytes.Equal(again.Payload, r.Payload) {
					t.Fatalf("%+v became %+v: %v", r, again, err)
				}
			}
		}
		frame(b)
		frame(framed(b))
		if r, ok := readBody(b); ok && json.Valid(b) {
			var slow diskRecord
			if err := json.Unmarshal(b, &slow); err != nil || !reflect.DeepEqual(Record(slow), r) {
				t.Fatalf("the quick reader made %+v of %s, the other %+v (%v)", r, b, slow, err)
			}
		}
		s, err := scanBytes(t, b)
		if err != nil {
			t.Fatal(err)
		}
		if s.good > s.size {
			t.Fatalf("%d good bytes of %d", s.good, s.size)
		}
	})
}

// framed puts a length and the right checksum before a body.
func framed(body []byte) []byte {
	frame := append(make([]byte, frameHeader), body...)
	binary.LittleEndian.PutUint32(frame, uint32(len(body)))
	binary.LittleEndian.PutUint32(frame[4:], frameSum(frame))
	return frame
}

// What an agent holds while it starts doesn't grow with its journal.
func TestOnlyTheNewestSnapshotAndWhatFollowsAreKept(t *testing.T) {
	at := func(kind string, seq uint64) Entry { return Entry{Record: Record{Kind: kind, Seq: seq}} }
	all := []Entry{at("Tick", 1), at(KindSnapshot, 2), at("Tick", 3), at(KindSnapshot, 4), at("Tick", 5)}
	if got := sinceSnapshot(all); len(got) != 2 || cap(got) > 4 || got[0].Seq != 4 || got[1].Seq != 5 {
		t.Errorf("kept %d of capacity %d: %+v", len(got), cap(got), got)
	}
	for _, same := range [][]Entry{nil, all[:1], all[1:3]} {
		if got := sinceSnapshot(same); len(got) != len(same) {
			t.Errorf("of %d entries %d were kept", len(same), len(got))
		}
	}
}
