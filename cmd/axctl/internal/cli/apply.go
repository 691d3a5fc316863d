package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/manifest"
	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
)

const manifestHelp = `A file holds YAML documents, separated by lines of '---':

  kind: VirtualService
  name: web
  ip: 1.1.1.1                   # made up, or kept, if left out
  balancer: RoundRobin          # Random, RoundRobin, LeastConn, Maglev
  backends: [10.0.2.15=3, 10.0.2.16, "192.0.2.7:8080"]
  ports: ["80:8000"]
  sessionAffinity: 10m
  ---
  kind: Policy
  name: no-test-in-prod
  action: deny
  from: {role: test}            # or text, as -l takes it: "role in (test,dev),tier!=front"
  to: {role: prod}
  ports: [5432, 8000-8100]
  protocol: tcp                 # or udp; both, if left out
  audit: true                   # tell what it would deny, and deny nothing
  ---
  kind: Policy
  name: no-internet
  action: deny
  toCidrs: [0.0.0.0/0, "::/0"]  # addresses outside AppSwitch
  exceptCidrs: [10.0.0.0/8]

A document says all there is to say: what it leaves out gets its default.`

func newApply() *cobra.Command {
	var files []string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or change virtual services and policies as files say",
		Long: `Make virtual services and policies what files say, and tell of each whether it was created, configured or unchanged.
Applying a file twice is as good as once. Everything is checked before anything is changed.

` + manifestHelp,
		Example: `  ax apply -f services.yaml
  ax apply -f services.yaml -f policies.yaml --dry-run     check, and say what would be done
  kubectl kustomize . | ax apply -f -                      from standard input`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := addClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, objects, err := readManifests(cmd, flags, files)
		if err != nil {
			return err
		}
		done, err := applyAll(cmd.Context(), client, objects, true)
		if err != nil {
			return err
		}
		if !dryRun {
			done, err = applyAll(cmd.Context(), client, objects, false)
		}
		for _, a := range done { // also if one in the middle failed
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), a); err != nil {
				return err
			}
		}
		return err
	}
	addFileFlag(cmd, &files)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check everything and change nothing")
	return cmd
}

func newDiff() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what apply would change",
		Long: `Show what 'ax apply' would change, as differences between what is there and what files say.
The exit status is 0 if there are none, 1 if there are some, and 2 if that can't be found out.`,
		Example: `  ax diff -f services.yaml
  ax diff -f services.yaml || ax apply -f services.yaml`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := addClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, objects, err := readManifests(cmd, flags, files)
		if err != nil {
			return troubleError{err}
		}
		applied, err := applyAll(cmd.Context(), client, objects, true)
		if err != nil {
			return troubleError{err}
		}
		different := false
		for _, a := range applied {
			text, err := a.diff()
			if err != nil {
				return troubleError{err}
			}
			different = different || len(text) > 0
			if _, err := cmd.OutOrStdout().Write(text); err != nil {
				return troubleError{err}
			}
		}
		if different {
			return errReported
		}
		return nil
	}
	addFileFlag(cmd, &files)
	return cmd
}

func addFileFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "`FILE` of YAML documents, '-' for standard input; may be given several times")
	_ = cmd.RegisterFlagCompletionFunc("filename", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
	})
}

// readManifests reads all files before anything is sent.
func readManifests(cmd *cobra.Command, flags *clientFlags, files []string) (*api.Client, []manifest.Object, error) {
	if len(files) == 0 {
		return nil, nil, usagef("%s what? Name a file with -f, or -f - for standard input", cmd.CommandPath())
	}
	client, err := flags.client()
	if err != nil {
		return nil, nil, err
	}
	var all []manifest.Object
	for _, name := range files {
		objects, err := readManifest(cmd.InOrStdin(), name)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, objects...)
	}
	return client, all, manifest.Unique(all)
}

func readManifest(stdin io.Reader, name string) ([]manifest.Object, error) {
	nearest := func(word string, known []string) string { return didYouMean("", word, known) }
	if name == "-" {
		return manifest.Parse("standard input", stdin, nearest)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory: name its files, each with -f", name)
	}
	return manifest.Parse(name, f, nearest)
}

// applied is what the daemon said of an object.
type applied struct {
	manifest.Object
	dryRun  bool
	outcome registryv1.ApplyOutcome
	was, is any // ax.VirtualService or ax.Policy; was is nil if there was none
}

// String tells what was done.
func (a applied) String() string {
	text := a.Short() + " " + strings.ToLower(strings.TrimPrefix(a.outcome.String(), "APPLY_OUTCOME_"))
	if a.dryRun {
		text += " (dry run)"
	}
	return text
}

// diff shows what was done; nothing if that is nothing.
func (a applied) diff() ([]byte, error) {
	if a.outcome == registryv1.ApplyOutcome_APPLY_OUTCOME_UNCHANGED {
		return nil, nil
	}
	var was []byte
	if a.was != nil {
		var err error
		if was, err = manifest.Write(a.was); err != nil {
			return nil, err
		}
	}
	is, err := manifest.Write(a.is)
	if err != nil {
		return nil, err
	}
	return diff.Diff(a.Short()+" (present)", was, a.Short()+" ("+a.Where+")", is), nil
}

// applyAll applies objects in order, up to the first that fails.
func applyAll(ctx context.Context, client *api.Client, objects []manifest.Object, dryRun bool) ([]applied, error) {
	var out []applied
	for _, o := range objects {
		a, err := apply(ctx, client, o, dryRun)
		if err != nil {
			return out, fmt.Errorf("%s: %s: %w", o.Where, o.Short(), err)
		}
		out = append(out, a)
	}
	return out, nil
}

func apply(ctx context.Context, client *api.Client, o manifest.Object, dryRun bool) (applied, error) {
	out := applied{Object: o, dryRun: dryRun}
	query := url.Values{}
	if dryRun {
		query.Set("dryRun", "true")
	}
	var err error
	switch v := o.Value.(type) {
	case ax.VirtualService:
		var reply registryv1.ApplyVirtualServiceResponse
		if err = client.Put(ctx, "/v1/vservices/"+url.PathEscape(o.Name), query, axpb.VirtualService(v), &reply); err != nil {
			return out, err
		}
		out.outcome = reply.GetOutcome()
		out.was, out.is, err = values(reply.GetPrevious(), reply.GetVirtualService(), axpb.VirtualServiceFrom)
	case ax.Policy:
		var reply registryv1.ApplyPolicyResponse
		if err = client.Put(ctx, "/v1/policies/"+url.PathEscape(o.Name), query, axpb.Policy(v), &reply); err != nil {
			return out, err
		}
		out.outcome = reply.GetOutcome()
		out.was, out.is, err = values(reply.GetPrevious(), reply.GetPolicy(), axpb.PolicyFrom)
	}
	return out, err
}

// values reads a record as it was, nil if it was not, and as it is.
func values[P any, V any](was, is *P, from func(*P) (V, error)) (any, any, error) {
	now, err := from(is)
	if err != nil || was == nil {
		return nil, now, err
	}
	before, err := from(was)
	return before, now, err
}
