package main

import (
	"fmt"
	"regexp"
	"strings"
)

// Bounds of what is printed of a failed test, where it failed and again at the end.
const (
	maxOutputLines = 150
	maxOutputWidth = 500
	maxReasons     = 8
	maxReasonWidth = 300
	// chatty is how often a place in a test may speak before it counts as a log.
	chatty = 3
	// toldAlready marks such a place.
	toldAlready = -1
	// maxFollowing is how many further lines a message may have before it counts as a dump, of
	// which the first line says enough.
	maxFollowing = 3
)

// failure is a failed test, or a package that failed without one, and why.
type failure struct {
	name    string
	reasons []string
}

func (f failure) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n", f.name)
	for _, r := range f.reasons {
		fmt.Fprintf(&b, "    %s\n", r)
	}
	return b.String()
}

// message is what a test said at one place.
type message struct {
	place     string // file:line
	text      string
	following []string
}

var (
	// said is how the testing package prints what a test says.
	said = regexp.MustCompile(`^ +([\w.\-]+\.go:\d+): (.*)$`)
	// died is how the runtime and the testing package announce the end of a whole process.
	died = regexp.MustCompile(`^(panic: |fatal error: |FAIL\t.*\[|WARNING: DATA RACE|pgtest: |\S+\.go:\d+:\d+: )`)
	// framed are the lines of the testing package itself.
	framed = regexp.MustCompile(`^\s*(=== |--- )`)
)

// reasonsOf finds in a test's output the sentences that say why it failed. go test doesn't tell
// what was logged from what was complained about, so a place that speaks again and again is
// taken for a log, of which the first message is kept, as is the first line of a message with many.
func reasonsOf(output []string) []string {
	messages, deaths := messagesOf(lines(output))
	spoke := map[string]int{}
	for _, m := range messages {
		spoke[m.place]++
	}
	out := deaths
	for _, m := range messages {
		if n := spoke[m.place]; n > chatty && len(spoke) > 1 {
			out = append(out, fmt.Sprintf("%s: %s (and %d more here)", m.place, narrow(m.text, maxReasonWidth/2), n-1))
			spoke[m.place] = toldAlready
			continue
		} else if n == toldAlready {
			continue
		}
		out = append(out, m.place+": "+m.text)
		if len(m.following) <= maxFollowing {
			out = append(out, m.following...)
		}
	}
	for i, line := range out {
		out[i] = narrow(line, maxReasonWidth)
	}
	return shorten(out, maxReasons)
}

func messagesOf(lines []string) (messages []message, deaths []string) {
	for _, line := range lines {
		switch match := said.FindStringSubmatch(line); {
		case match != nil:
			messages = append(messages, message{place: match[1], text: match[2]})
		case died.MatchString(line):
			deaths = append(deaths, line)
		case strings.HasPrefix(line, "        ") && len(messages) > 0 && !framed.MatchString(line):
			last := &messages[len(messages)-1]
			last.following = append(last.following, "    "+strings.TrimSpace(line))
		}
	}
	return messages, deaths
}

// condensed is a failed test's whole output without its middle, if it is long.
func condensed(output []string) string {
	all := lines(output)
	for i, line := range all {
		all[i] = narrow(line, maxOutputWidth)
	}
	if len(all) == 0 {
		return ""
	}
	return strings.Join(shorten(all, maxOutputLines), "\n") + "\n"
}

// lines splits pieces of output, which needn't end where lines do.
func lines(output []string) []string {
	text := strings.TrimRight(strings.Join(output, ""), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// shorten cuts the middle out of more than limit lines. The end gets the larger half: it is
// where a test says how it ended.
func shorten(lines []string, limit int) []string {
	if len(lines) <= limit {
		return lines
	}
	head := (limit - 1) / 3
	tail := limit - 1 - head
	out := append([]string(nil), lines[:head]...)
	out = append(out, fmt.Sprintf("    … %d lines left out …", len(lines)-head-tail))
	return append(out, lines[len(lines)-tail:]...)
}

// narrow cuts the end off a line longer than width, counted in characters.
func narrow(line string, width int) string {
	runes := []rune(line)
	if len(runes) <= width {
		return line
	}
	return string(runes[:width]) + fmt.Sprintf(" … (%d more)", len(runes)-width)
}
