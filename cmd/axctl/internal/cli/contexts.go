package cli

import (
	"fmt"
	"io"
	"path/filepath"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/contexts"
	"appswitch.io/cmd/axctl/internal/output"
	"github.com/spf13/cobra"
)

// contextCommands are the subcommands of `config` about contexts.
func contextCommands() []*cobra.Command {
	return []*cobra.Command{newGetContexts(), newCurrentContext(), newUseContext(), newSetContext(), newDeleteContext()}
}

// openContexts reads the user's contexts.
func openContexts() (path string, file contexts.File, err error) {
	if path, err = contexts.Path(); err == nil {
		file, err = contexts.Load(path)
	}
	return path, file, err
}

// showContexts returns a subcommand of `config` that takes no argument and shows something of the contexts.
func showContexts(name, short string, show func(out io.Writer, file contexts.File) error) *cobra.Command {
	return &cobra.Command{
		Use:               name,
		Short:             short,
		Example:           "  ax config " + name,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, file, err := openContexts()
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), file)
		},
	}
}

func newGetContexts() *cobra.Command {
	format := output.NewFormatFlag(output.FormatTable, output.FormatJSON, output.FormatYAML, output.FormatName)
	cmd := showContexts("get-contexts", "List the contexts", func(out io.Writer, file contexts.File) error {
		switch format.Value {
		case output.FormatJSON, output.FormatYAML:
			if file.Contexts == nil {
				file.Contexts = []contexts.Context{}
			}
			return output.WriteData(out, format.Value, file)
		case output.FormatName:
			for _, name := range file.Names() {
				if _, err := fmt.Fprintln(out, name); err != nil {
					return err
				}
			}
			return nil
		}
		t := contextColumns(file.Current).Table(file.Contexts, false)
		return t.Write(out, true)
	})
	cmd.Flags().VarP(format, "output", "o", "`format`: "+format.Choices())
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(format.Names(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func contextColumns(current string) output.Columns[contexts.Context] {
	return output.Columns[contexts.Context]{
		{Name: "CURRENT", Value: func(c contexts.Context) string {
			if c.Name == current {
				return "*"
			}
			return ""
		}, Tone: func(contexts.Context) output.Tone { return output.Good }},
		{Name: "NAME", Value: func(c contexts.Context) string { return c.Name }},
		{Name: "SERVER", Value: func(c contexts.Context) string { return c.Server }},
		{Name: "TLS", Value: func(c contexts.Context) string { return c.TLS.Cert }},
	}
}

func newCurrentContext() *cobra.Command {
	return showContexts("current-context", "Show which context is in use", func(out io.Writer, file contexts.File) error {
		if file.Current == "" {
			return fmt.Errorf("no context is in use: commands talk to %s; `ax config use-context NAME` chooses one", api.DefaultServer)
		}
		_, err := fmt.Fprintln(out, file.Current)
		return err
	})
}

func newUseContext() *cobra.Command {
	return &cobra.Command{
		Use:               "use-context NAME",
		Short:             "Talk to the daemon of a context from now on",
		Example:           `  ax config use-context prod`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, file, err := openContexts()
			if err != nil {
				return err
			}
			c, ok := file.Get(args[0])
			if !ok {
				return unknownContext(args[0], file)
			}
			file.Current = c.Name
			if err := file.Save(path); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Context '%s' is in use: %s.\n", c.Name, c.Server)
			return err
		},
	}
}

func newSetContext() *cobra.Command {
	var c contexts.Context
	var use bool
	cmd := &cobra.Command{
		Use:   "set-context NAME --server URL",
		Short: "Add a context, or change one",
		Long: `Add a context, or change one: of an existing context only what is given changes. Files are kept by their absolute names,
not copied.`,
		Example: `  ax config set-context lab --server 10.0.0.6:6664
  ax config set-context prod --server https://10.0.0.5:6664 --tls-ca-cert ca.pem --tls-cert me.pem --tls-key me.key --use`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, file, err := openContexts()
			if err != nil {
				return err
			}
			merged, _ := file.Get(args[0])
			merged.Name = args[0]
			if err := mergeContext(&merged, c); err != nil {
				return err
			}
			if merged.Server == "" {
				return usagef("context %q is new: give its --server URL", merged.Name)
			}
			if _, err := api.New(merged.Server, api.DefaultTimeout); err != nil {
				return usageError{err}
			}
			replaced, err := file.Set(merged)
			if err != nil {
				return usageError{err}
			}
			if use {
				file.Current = merged.Name
			}
			if err := file.Save(path); err != nil {
				return err
			}
			done := "created"
			if replaced {
				done = "changed"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Context '%s' %s.\n", merged.Name, done)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&c.Server, "server", "", "`URL` of the daemon's REST interface")
	fs.StringVar(&c.TLS.CACert, "tls-ca-cert", "", "`file` with the CA certificate that the daemon must be signed by (PEM)")
	fs.StringVar(&c.TLS.Cert, "tls-cert", "", "`file` with the certificate to show (PEM)")
	fs.StringVar(&c.TLS.Key, "tls-key", "", "`file` with the key of --tls-cert (PEM)")
	fs.BoolVar(&use, "use", false, "and use it from now on")
	_ = cmd.RegisterFlagCompletionFunc("server", cobra.NoFileCompletions)
	return cmd
}

// mergeContext changes what the flags give.
func mergeContext(c *contexts.Context, given contexts.Context) error {
	if given.Server != "" {
		c.Server = given.Server
	}
	for _, f := range []struct {
		from string
		to   *string
	}{{given.TLS.CACert, &c.TLS.CACert}, {given.TLS.Cert, &c.TLS.Cert}, {given.TLS.Key, &c.TLS.Key}} {
		if f.from == "" {
			continue
		}
		abs, err := filepath.Abs(f.from)
		if err != nil {
			return fmt.Errorf("TLS file %s: %w", f.from, err)
		}
		*f.to = abs
	}
	return nil
}

func newDeleteContext() *cobra.Command {
	return &cobra.Command{
		Use:               "delete-context NAME",
		Short:             "Delete a context",
		Example:           `  ax config delete-context lab`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, file, err := openContexts()
			if err != nil {
				return err
			}
			if !file.Delete(args[0]) {
				return unknownContext(args[0], file)
			}
			if err := file.Save(path); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Context '%s' deleted.\n", args[0])
			return err
		},
	}
}
