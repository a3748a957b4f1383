package metrics

import "time"

// distribution is a histogram of durations. It is guarded by its owner.
type distribution struct {
	bounds []time.Duration // upper, ascending; +Inf is implied
	counts []uint64        // one more than bounds
	sum    time.Duration
	count  uint64
}

func newDistribution(bounds []time.Duration) *distribution {
	return &distribution{bounds: bounds, counts: make([]uint64, len(bounds)+1)}
}

func (d *distribution) add(v time.Duration) {
	i := 0
	for i < len(d.bounds) && v > d.bounds[i] {
		i++
	}
	d.counts[i]++
	d.sum += v
	d.count++
}

// write prints the samples of one member of a family; the head has been written.
func (d *distribution) write(p *Page, name string, labels ...Label) {
	var below uint64
	for i, n := range d.counts {
		below += n
		bound := "+Inf"
		if i < len(d.bounds) {
			bound = Seconds(d.bounds[i])
		}
		p.Sample(name+"_bucket", Whole(below), append(labels[:len(labels):len(labels)], Label{"le", bound})...)
	}
	p.Sample(name+"_sum", Seconds(d.sum), labels...)
	p.Sample(name+"_count", Whole(d.count), labels...)
}
