package journal

import "sort"

// After returns, oldest first, up to n of the records that come after number seq and are
// still in memory, and a channel that is closed at the next Append. With ok false the
// memory begins later than that: what is missing is on the disk, see ReadFrom. Whoever
// follows a journal pulls by it in its own time; the journal waits for nobody.
func (j *Journal) After(seq uint64, n int) (records []Record, more <-chan struct{}, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.appended == nil {
		j.appended = make(chan struct{})
	}
	from := sort.Search(len(j.recent), func(i int) bool { return j.recent[i].Seq > seq })
	switch {
	case from < len(j.recent):
		ok = j.recent[from].First() <= seq+1
	default:
		ok = j.seq <= seq
	}
	if ok {
		records = append(records, j.recent[from:min(len(j.recent), from+n)]...)
	}
	return records, j.appended, ok
}

// Dir is the journal's folder.
func (j *Journal) Dir() string { return j.dir }
