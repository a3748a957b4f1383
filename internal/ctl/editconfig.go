package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/ctl/pyfmt"
)

// editing is how the shared configuration is to be changed.
type editing struct {
	replace, apply string // files; - is stdin
	set, pg        []string
	quiet, force   bool
}

func (a *App) editConfig() *cobra.Command {
	var o editing
	cmd := &cobra.Command{
		Use:   "edit-config [OPTIONS] [CLUSTER_NAME]",
		Short: "Edit cluster configuration",
		Long: "Change the configuration that all members share: by options, by a file, or in $EDITOR. The difference is shown\n" +
			"before it is applied. What somebody else has changed in the meantime is never overwritten.",
		Args: atMostOne,
		RunE: a.on(func(ctx context.Context, s *session) error { return s.edit(ctx, o) }),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.quiet, "quiet", "q", false, "don't show the difference")
	f.StringArrayVarP(&o.set, "set", "s", nil, "`KEY=VALUE`: set a value; levels are separated by dots, null removes")
	f.StringArrayVarP(&o.pg, "pg", "p", nil, "`KEY=VALUE`: set a parameter of PostgreSQL")
	f.StringVar(&o.apply, "apply", "", "`FILE` with changes to merge; - for stdin")
	f.StringVar(&o.replace, "replace", "", "`FILE` with the whole configuration; - for stdin")
	f.BoolVar(&o.force, "force", false, "ask nothing")
	a.Target(cmd)
	return cmd
}

// edit changes the configuration that was read, and writes it only if it is still that.
func (s *session) edit(ctx context.Context, o editing) error {
	c, err := s.view(ctx)
	if err != nil {
		return err
	}
	if c.Config.Version == 0 || !c.config.IsObject() {
		return fail("The config key does not exist in the cluster %s", s.name)
	}
	next, text, err := s.edited(ctx, c, o)
	if err != nil {
		return err
	}
	before, after := c.config.YAML(), next.YAML()
	if before == after {
		s.app.println("Not changed")
		return nil
	}
	if !o.quiet {
		s.app.printf("%s\n", unifiedDiff(before, after))
	}
	if (o.apply == "-" || o.replace == "-") && !o.force {
		s.app.println("Use --force option to apply changes")
		return nil
	}
	raw, err := dcs.CompactJSON([]byte(next.JSON()))
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	raw = dcs.KeepMove(c.Move, raw)
	if _, problems := config.ParseDynamic(raw); config.Errors(problems) != nil {
		return s.keep(text, config.Errors(problems))
	}
	if !o.force {
		sure, err := s.app.confirm(ctx, "Apply these changes?")
		if err != nil || !sure {
			return err
		}
	}
	if err := s.writeConfig(ctx, c, raw); err != nil {
		return s.keep(text, err)
	}
	s.app.println("Configuration changed")
	return nil
}

// edited is the configuration after all changes; text is what was written in an editor.
func (s *session) edited(ctx context.Context, c cluster, o editing) (next pyfmt.Value, text string, err error) {
	next = c.config
	if o.replace != "" {
		if next, err = s.app.readYAML(o.replace); err != nil {
			return next, "", err
		}
	}
	if o.apply != "" {
		patch, err := s.app.readYAML(o.apply)
		if err != nil {
			return next, "", err
		}
		merged, _, err := dcs.PatchConfig([]byte(next.JSON()), []byte(patch.JSON()))
		if err != nil {
			return next, "", fail("The changes can't be merged: %v", err)
		}
		if next, err = pyfmt.Parse(merged); err != nil {
			return next, "", err
		}
	}
	pairs := append([]string(nil), o.set...)
	for _, p := range o.pg {
		pairs = append(pairs, "postgresql.parameters."+p)
	}
	for _, pair := range pairs {
		if next, err = setPair(next, pair); err != nil {
			return next, "", err
		}
	}
	if o.replace == "" && o.apply == "" && len(pairs) == 0 {
		return s.inEditor(ctx, c)
	}
	return next, "", nil
}

// writeConfig replaces the configuration, if nobody else did since it was read.
func (s *session) writeConfig(ctx context.Context, c cluster, raw []byte) error {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	_, err := s.store.Commit(ctx, dcs.Txn{
		Guards: []dcs.Guard{{Key: dcs.KeyConfig, Version: c.Config.Version}},
		Writes: []dcs.Write{dcs.Put(dcs.KeyConfig, raw)},
	})
	switch {
	case errors.Is(err, dcs.ErrRefused):
		return fail("Config modification aborted due to concurrent changes")
	case errors.Is(err, dcs.ErrUnknown):
		return fail("It isn't known whether the change reached the store (%v). Look at it with show-config before you try again", err)
	case err != nil:
		return fail("Could not write the configuration to the store: %v", err)
	}
	return nil
}

// readYAML reads a mapping from a file, or from stdin.
func (a *App) readYAML(file string) (pyfmt.Value, error) {
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(a.env.In)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return pyfmt.Value{}, fail("%s can't be read: %v", file, err)
	}
	return parseYAML(file, text)
}

func parseYAML(source string, text []byte) (pyfmt.Value, error) {
	raw, err := config.ToJSON(source, text)
	if err != nil {
		return pyfmt.Value{}, failure(err.Error())
	}
	return pyfmt.Parse(raw)
}

// setPair carries out KEY=VALUE, the value being YAML.
func setPair(v pyfmt.Value, pair string) (pyfmt.Value, error) {
	path, text, ok := strings.Cut(pair, "=")
	if !ok {
		return v, fail("Invalid parameter setting %s", pair)
	}
	doc, err := parseYAML(pair, []byte("value: "+strings.TrimSpace(text)+"\n"))
	if err != nil {
		return v, fail("Invalid value in %s: %v", pair, err)
	}
	return setPath(v, strings.Split(strings.TrimSpace(path), "."), "", doc.Get("value")), nil
}

// setPath puts a value in a place below v, where at names v's own place. A parameter of
// PostgreSQL is one key, dots and all. What becomes empty on the way is removed.
func setPath(v pyfmt.Value, path []string, at string, item pyfmt.Value) pyfmt.Value {
	if at == ".postgresql.parameters" {
		path = []string{strings.Join(path, ".")}
	}
	key := path[0]
	if len(path) > 1 {
		below := v.Get(key)
		if !below.IsObject() {
			below = pyfmt.Object()
		}
		item = setPath(below, path[1:], at+"."+key, item)
		if len(item.Keys()) == 0 {
			item = pyfmt.Value{}
		}
	}
	out := pyfmt.Object()
	for _, k := range v.Keys() {
		if k != key || !item.IsNull() {
			out.Set(k, v.Get(k))
		}
	}
	if !item.IsNull() {
		out.Set(key, item)
	}
	return out
}

// inEditor lets the operator edit the whole configuration as YAML.
func (s *session) inEditor(ctx context.Context, c cluster) (next pyfmt.Value, text string, err error) {
	file, err := os.CreateTemp("", s.name+"-config-*.yaml")
	if err != nil {
		return next, "", fmt.Errorf("make a file to edit: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // what is worth keeping was kept
	_, err = file.WriteString(c.config.YAML())
	if err = errors.Join(err, file.Close()); err != nil {
		return next, "", fmt.Errorf("write the file to edit: %w", err)
	}
	code, err := s.app.env.Edit(ctx, s.app.editors(), file.Name())
	switch {
	case err != nil:
		return next, "", fail("No editor could be started (%v). Set EDITOR, or use -s, -p, --apply or --replace", err)
	case code != 0:
		return next, "", fail("Editor exited with return code %d", code)
	}
	edited, err := os.ReadFile(file.Name())
	if err != nil {
		return next, "", fmt.Errorf("read the edited file: %w", err)
	}
	next, err = parseYAML("the configuration", edited)
	return next, string(edited), s.keep(string(edited), err)
}

// keep saves what an operator wrote in an editor when it could not be applied.
func (s *session) keep(text string, err error) error {
	if err == nil || text == "" {
		return err
	}
	file, saveErr := os.CreateTemp("", s.name+"-config-rejected-*.yaml")
	if saveErr == nil {
		_, saveErr = io.Copy(file, bytes.NewBufferString(text))
		saveErr = errors.Join(saveErr, file.Close())
	}
	if saveErr != nil {
		return err
	}
	return fail("%v\nWhat you wrote is kept in %s", err, file.Name())
}

// editors are the programs to try, the operator's own first.
func (a *App) editors() []string {
	if e := a.variable("EDITOR"); e != "" {
		return []string{e}
	}
	return []string{"editor", "vi"}
}
