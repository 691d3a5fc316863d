package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/internal/selector"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// resource is a kind of thing that `get` lists.
type resource[T proto.Message] struct {
	plural, singular string
	aliases          []string
	short, example   string
	path             string // of the list, over REST
	field            string // of the reply that holds it
	// kind is the resource's in the service table, and record the field of a registry record that holds it: a watch
	// follows the table. Without them there is no stream of it, and a watch looks at the list now and then.
	kind    registryv1.Kind
	record  string
	columns func(now time.Time) output.Columns[T]
	names   func(T) []string          // what a NAME argument may be; -o name writes the first
	compare func(a, b T) int          // order of the list
	labels  func(T) map[string]string // what -l looks at; nil: it has none
	// implied, if any, returns what -o wide shows beside the list.
	implied   func(context.Context, *api.Client) ([]T, error)
	impliedBy []registryv1.Kind // of which records it is made
}

// item is one resource, decoded and as it came.
type item[T proto.Message] struct {
	raw json.RawMessage
	msg T
}

// listFlags are the flags of a subcommand of `get`.
type listFlags struct {
	format           *output.FormatFlag
	selector         selector.Selector
	watch, noHeaders bool
}

func (f *listFlags) add(cmd *cobra.Command, labels bool) {
	f.format = output.NewFormatFlag(output.FormatTable, output.FormatWide, output.FormatJSON, output.FormatYAML, output.FormatName)
	fs := cmd.Flags()
	fs.VarP(f.format, "output", "o", "`format`: "+f.format.Choices())
	fs.BoolVar(&f.noHeaders, "no-headers", false, "leave out the header of the table")
	fs.BoolVarP(&f.watch, "watch", "w", false, "go on, and write what changes, until Ctrl-C; with -o json an object to a line")
	fs.VarP(&f.selector, "selector", "l", "only those whose labels match: k=v, k!=v, k, !k, several by comma")
	fs.Lookup("selector").Hidden = !labels
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(f.format.Names(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("selector", cobra.NoFileCompletions)
}

// command returns the subcommand of `get`.
func (r resource[T]) command(flags *clientFlags) *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:     r.plural + " [NAME]...",
		Aliases: append([]string{r.singular}, r.aliases...),
		Short:   r.short,
		Example: r.example,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !f.selector.Empty() && r.labels == nil {
				return usagef("-l %s: %s have no labels; apps and servers have", f.selector.String(), r.plural)
			}
			client, err := flags.client()
			if err != nil {
				return err
			}
			if f.watch {
				return r.runWatch(cmd, client, &f, args)
			}
			return r.runOnce(cmd, client, &f, args)
		},
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return r.complete(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp
		},
	}
	f.add(cmd, r.labels != nil)
	return cmd
}

func (r resource[T]) runOnce(cmd *cobra.Command, client *api.Client, f *listFlags, args []string) error {
	envelope, items, err := r.list(cmd.Context(), client, f)
	if err != nil {
		return err
	}
	known := r.namesOf(items)
	items, missing := r.choose(items, args)
	if len(items) > 0 || len(missing) == 0 {
		if err := r.write(cmd, f.format.Value, !f.noHeaders, envelope, items); err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		hint := didYouMean("", missing[0], known)
		if hint == "" || len(missing) > 1 {
			hint = fmt.Sprintf(": `ax get %s` lists them", r.plural)
		}
		for i, name := range missing {
			missing[i] = strconv.Quote(name)
		}
		return fmt.Errorf("no %s %s%s", r.singular, strings.Join(missing, ", "), hint)
	}
	return nil
}

func (r resource[T]) runWatch(cmd *cobra.Command, client *api.Client, f *listFlags, args []string) error {
	ctx, stop := untilInterrupt(cmd.Context())
	defer stop()
	w := &watchWriter[T]{r: r, out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr(), format: f.format.Value, headers: !f.noHeaders}
	return r.watch(ctx, w, func(ctx context.Context, each func([]item[T]) error) error {
		chosen := func(items []item[T]) error {
			items, _ = r.choose(items, args) // a name that is not there may come
			return each(items)
		}
		if r.record != "" {
			return r.follow(ctx, client, f, chosen)
		}
		_, items, err := r.list(ctx, client, f)
		if err != nil {
			return err
		}
		return chosen(items)
	})
}

// list loads what the flags select, with what -o wide shows beside it.
func (r resource[T]) list(ctx context.Context, client *api.Client, f *listFlags) (map[string]json.RawMessage, []item[T], error) {
	envelope, items, err := r.load(ctx, client)
	if err != nil {
		return nil, nil, err
	}
	if r.implied != nil && f.format.Value == output.FormatWide {
		implied, err := r.implied(ctx, client)
		if err != nil {
			return nil, nil, err
		}
		for _, msg := range implied {
			items = append(items, item[T]{msg: msg})
		}
	}
	return envelope, r.selected(items, f), nil
}

// selected keeps the items that -l selects.
func (r resource[T]) selected(items []item[T], f *listFlags) []item[T] {
	if f.selector.Empty() {
		return items
	}
	return slices.DeleteFunc(items, func(it item[T]) bool { return !f.selector.Matches(r.labels(it.msg)) })
}

// load asks for the list. The envelope holds the other fields of the reply.
func (r resource[T]) load(ctx context.Context, client *api.Client) (map[string]json.RawMessage, []item[T], error) {
	body, err := client.Get(ctx, r.path, nil, nil)
	if err != nil {
		return nil, nil, err
	}
	var envelope map[string]json.RawMessage
	var raws []json.RawMessage
	if err = json.Unmarshal(body, &envelope); err == nil && envelope[r.field] != nil {
		err = json.Unmarshal(envelope[r.field], &raws)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("decode %s of %s: %w", r.path, client.Server(), err)
	}
	items := make([]item[T], 0, len(raws))
	for i, raw := range raws {
		it, err := r.decode(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("decode %s of %s: %s[%d]: %w", r.path, client.Server(), r.field, i, err)
		}
		items = append(items, it)
	}
	return envelope, items, nil
}

func (r resource[T]) decode(raw json.RawMessage) (item[T], error) {
	var zero T
	msg := zero.ProtoReflect().New().Interface().(T) //nolint:forcetypeassert // of T itself
	err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, msg)
	return item[T]{raw: raw, msg: msg}, err
}

// choose sorts the items and keeps those that args name, all if there are none. It also returns the names that no
// item has.
func (r resource[T]) choose(items []item[T], args []string) (chosen []item[T], missing []string) {
	slices.SortStableFunc(items, func(a, b item[T]) int { return r.compare(a.msg, b.msg) })
	if len(args) == 0 {
		return items, nil
	}
	found := map[string]bool{}
	for _, it := range items {
		names := r.names(it.msg)
		if i := slices.IndexFunc(args, func(arg string) bool { return slices.Contains(names, arg) }); i >= 0 {
			chosen = append(chosen, it)
			for _, n := range names {
				found[n] = true
			}
		}
	}
	for _, arg := range args {
		if !found[arg] {
			missing = append(missing, arg)
		}
	}
	return chosen, missing
}

func (r resource[T]) write(cmd *cobra.Command, format output.Format, headers bool, envelope map[string]json.RawMessage, items []item[T]) error {
	out := cmd.OutOrStdout()
	msgs := make([]T, len(items))
	raws := make([]json.RawMessage, len(items))
	for i, it := range items {
		msgs[i], raws[i] = it.msg, it.raw
	}
	switch format {
	case output.FormatJSON, output.FormatYAML:
		data, err := json.Marshal(raws)
		if err != nil {
			return fmt.Errorf("encode the result: %w", err)
		}
		envelope[r.field] = data
		return output.WriteData(out, format, envelope)
	case output.FormatName:
		for _, m := range msgs {
			if _, err := fmt.Fprintln(out, output.Sanitize(r.names(m)[0])); err != nil {
				return err
			}
		}
		return nil
	}
	t := r.columns(time.Now()).Table(msgs, format == output.FormatWide)
	return t.Write(out, headers)
}

// deletion returns the subcommand of `delete` for the kind. Called is what one of it is called when it is gone, and name an
// example.
func (r resource[T]) deletion(flags *clientFlags, called, name string) *cobra.Command {
	return &cobra.Command{
		Use:     r.singular + " NAME...",
		Aliases: r.aliases,
		Short:   "Delete " + r.plural,
		Example: "  ax delete " + r.singular + " " + name,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := flags.client()
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := client.Delete(cmd.Context(), r.path+"/"+url.PathEscape(name), nil); err != nil {
					return err
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s '%s' deleted successfully.\n", called, name); err != nil {
					return err
				}
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return r.complete(cmd.Context(), flags), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// complete returns the names for the shell; a daemon that is not there has none.
func (r resource[T]) complete(ctx context.Context, flags *clientFlags) []string {
	client, err := flags.client()
	if err != nil {
		return nil
	}
	_, items, err := r.load(ctx, client)
	if err != nil {
		return nil
	}
	return r.namesOf(items)
}

// namesOf returns all names of all items.
func (r resource[T]) namesOf(items []item[T]) []string {
	var names []string
	for _, it := range items {
		names = append(names, r.names(it.msg)...)
	}
	return names
}
