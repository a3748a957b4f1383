package pgmgr

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// rejectedParams remembers the answer to one set of parameters.
type rejectedParams struct {
	question string
	answer   map[string]string
}

// quoted matches the names that PostgreSQL's messages put in quotes.
const quoted = `"([^"]+)"`

// rejectedIn asks this server's own binary which of the parameters it doesn't
// take, unknown names and invalid values alike, and returns them with its words.
// Every version thereby judges by its own rules. The answer is kept until the
// parameters or the binary change.
func (m *Manager) rejectedIn(ctx context.Context, cfg Config, params map[string]string) (map[string]string, error) {
	version, err := m.ServerVersion(ctx)
	if err != nil {
		return nil, err
	}
	question := fmt.Sprint(version, "\n", plainConf(params))
	m.mu.Lock()
	known := m.rejected
	m.mu.Unlock()
	if known.question == question {
		return known.answer, nil
	}
	answer, err := m.askPostgres(ctx, cfg, params)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(answer)) {
		m.log.Warn("removing invalid parameter from postgresql.parameters", "parameter", name, "reason", answer[name])
	}
	m.mu.Lock()
	m.rejected = rejectedParams{question: question, answer: answer}
	m.mu.Unlock()
	return answer, nil
}

// askPostgres lets postgres read a file with the parameters, and takes out those
// it names in its complaints until it has none. If it complains about something
// else, nothing is rejected: the start will say what is wrong.
func (m *Manager) askPostgres(ctx context.Context, cfg Config, params map[string]string) (map[string]string, error) {
	const op = "check parameters"
	left, rejected := maps.Clone(params), map[string]string{}
	file, err := os.CreateTemp(cfg.RunDir, "check-*.conf")
	if err != nil {
		return nil, classed(ErrUnavailable, op, err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	if err := file.Close(); err != nil {
		return nil, classed(ErrUnavailable, op, err)
	}
	for {
		if err := os.WriteFile(file.Name(), []byte(plainConf(left)), 0o600); err != nil {
			return nil, classed(ErrUnavailable, op, err)
		}
		out, err := m.run(ctx, tool{name: "postgres", args: []string{"-D", cfg.DataDir, "--config-file=" + file.Name(), "-C", "config_file"}})
		if err == nil {
			return rejected, nil
		}
		if ctx.Err() != nil || hasClass(err) {
			return nil, orClassed(ErrUnavailable, op, err)
		}
		found := complaints(out, left)
		if len(found) == 0 {
			m.log.Warn("the server's configuration can't be checked", "output", lastLines(out, 3))
			return rejected, nil
		}
		for name, why := range found {
			rejected[name] = why
			delete(left, name)
		}
	}
}

// complaints finds the parameters that postgres's messages name.
func complaints(out string, params map[string]string) map[string]string {
	names := regexp.MustCompile(quoted)
	found := map[string]string{}
	for line := range strings.Lines(out) {
		for _, match := range names.FindAllStringSubmatch(line, -1) {
			name := strings.ToLower(match[1])
			if _, ok := params[name]; ok && found[name] == "" {
				found[name] = strings.TrimSpace(line)
				break // a value in quotes may be another parameter's name
			}
		}
	}
	return found
}

// plainConf renders only the parameters. Names with a dot belong to extensions,
// which nobody checks before they are loaded.
func plainConf(params map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(params)) {
		fmt.Fprintf(&b, "%s = %s\n", name, quoteGUC(params[name]))
	}
	return b.String()
}
