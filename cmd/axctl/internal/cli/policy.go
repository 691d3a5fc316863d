package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"appswitch.io/cmd/axctl/internal/output"
	"appswitch.io/internal/ax"
	"appswitch.io/internal/axpb"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"github.com/spf13/cobra"
)

var policies = resource[*typev1.Policy]{
	plural: "policies", singular: "policy", aliases: []string{"pol"},
	short: "List the policies of the cluster",
	example: `  ax get policies
  ax get policy no-test-in-prod -o yaml
  ax get policies -o wide          with the networks that are taken out`,
	path: "/v1/policies", field: "policies", kind: registryv1.Kind_KIND_POLICY, record: "policy",
	columns: func(time.Time) output.Columns[*typev1.Policy] { return output.Policies() },
	names:   func(p *typev1.Policy) []string { return []string{p.GetName()} },
	compare: func(a, b *typev1.Policy) int { return cmp.Compare(a.GetName(), b.GetName()) },
}

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "policy",
		Short:   "Try policies before they hold",
		Example: `  ax policy replay -f draft.yaml`,
	}
	group(cmd)
	cmd.AddCommand(newPolicyReplay(addClientFlags(cmd)))
	return cmd
}

func newCreatePolicy(flags *clientFlags) *cobra.Command {
	var p policyFlags
	cmd := &cobra.Command{
		Use:     "policy NAME --action allow|deny",
		Aliases: []string{"pol"},
		Short:   "Create a policy: allow or deny connections by who connects where",
		Long: `Create a policy. It applies to the connections that match everything it names; what it leaves out matches everything.

For a connection a policy that denies wins, then one that allows, and where none matches a client reaches the servers with
which it shares a label, and everything outside. --to chooses servers by their labels, --to-cidr networks outside AppSwitch;
with both, the policy applies to either. Selectors are as for -l: k=v, k!=v, k, !k, k in (v,w), k notin (v,w), several by
comma. 'k!=v' also matches what has no label k.

With --audit a policy denies nothing: 'ax observe --verdict audit' and the metrics of the agents show what it would deny.`,
		Example: `  ax create policy no-test-in-prod --action deny --from role=test --to role=prod
  ax create policy only-shop-pays --action deny --from 'role!=shop' --to role=payment --ports 8443 --protocol tcp
  ax create policy monitoring --action allow --from role=prometheus --ports 9100-9200     without a shared label
  ax create policy no-internet --action deny --to-cidr 0.0.0.0/0,::/0 --except-cidr 10.0.0.0/8
  ax create policy no-smtp --action deny --ports 25 --audit                               tell, and deny nothing`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, err := p.policy(args[0])
			if err != nil {
				return usageError{err}
			}
			client, err := flags.client()
			if err != nil {
				return err
			}
			var reply registryv1.CreatePolicyResponse
			if err := client.Post(cmd.Context(), "/v1/policies", axpb.Policy(policy), &reply); err != nil {
				return err
			}
			mode := ""
			if reply.GetPolicy().GetAudit() {
				mode = " in audit mode"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Policy '%s' created successfully%s.\n", reply.GetPolicy().GetName(), mode)
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	p.add(cmd)
	return cmd
}

// policyFlags are the flags of `create policy`.
type policyFlags struct {
	action, from, to, protocol string
	ports, cidrs, except       []string
	audit, all                 bool
}

func (p *policyFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&p.action, "action", "", "what happens to a matching connection: allow or deny")
	fs.StringVar(&p.from, "from", "", "`selector` of clients by their labels, such as role=test")
	fs.StringVar(&p.to, "to", "", "`selector` of servers by their labels")
	fs.StringSliceVar(&p.cidrs, "to-cidr", nil, "comma-separated `networks` outside AppSwitch, such as 10.0.0.0/8")
	fs.StringSliceVar(&p.except, "except-cidr", nil, "comma-separated `networks` that are taken out of --to-cidr")
	fs.StringSliceVar(&p.ports, "ports", nil, "comma-separated `ports` of services, and ranges such as 8000-8100")
	fs.StringVar(&p.protocol, "protocol", "", "transport `protocol`: tcp or udp; both if not given")
	fs.BoolVar(&p.audit, "audit", false, "deny nothing: tell what would be denied")
	fs.BoolVar(&p.all, "all", false, "confirm a policy that names nothing, and so applies to every connection")
	for _, name := range []string{"from", "to", "to-cidr", "except-cidr", "ports"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	_ = cmd.RegisterFlagCompletionFunc("action", cobra.FixedCompletions([]string{"allow", "deny"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("protocol", cobra.FixedCompletions([]string{"tcp", "udp"}, cobra.ShellCompDirectiveNoFileComp))
}

// policy reads the flags; its errors name the flag.
func (p *policyFlags) policy(name string) (out ax.Policy, err error) {
	out = ax.Policy{Name: name, Audit: p.audit}
	if out.Action, err = ax.ParsePolicyAction(p.action); err != nil {
		return out, fmt.Errorf("--action %w", err)
	}
	if out.From, err = ax.ParseSelector(p.from); err != nil {
		return out, fmt.Errorf("--from: %w", err)
	}
	if out.To, err = ax.ParseSelector(p.to); err != nil {
		return out, fmt.Errorf("--to: %w", err)
	}
	for _, s := range p.cidrs {
		c, err := ax.ParseCIDR(strings.TrimSpace(s))
		if err != nil {
			return out, fmt.Errorf("--to-cidr %w", err)
		}
		out.CIDRs = append(out.CIDRs, c)
	}
	for _, s := range p.except {
		c, err := ax.ParseCIDR(strings.TrimSpace(s))
		if err != nil {
			return out, fmt.Errorf("--except-cidr %w", err)
		}
		out.Except = append(out.Except, c)
	}
	for _, s := range p.ports {
		r, err := ax.ParsePortRange(s)
		if err != nil {
			return out, fmt.Errorf("--ports %w", err)
		}
		out.Ports = append(out.Ports, r)
	}
	if p.protocol != "" {
		if out.Proto, err = ax.ParseProtocol(p.protocol); err != nil {
			return out, fmt.Errorf("--protocol: %w", err)
		}
	}
	if err := out.Validate(); err != nil {
		return out, fmt.Errorf("--%s", strings.NewReplacer("to_cidrs", "to-cidr", "except_cidrs", "except-cidr").Replace(err.Error()))
	}
	if out.Everywhere() && len(out.From)+len(out.Ports) == 0 && out.Proto == 0 && !p.all {
		return out, errors.New("the policy names nothing, and so applies to every connection: add --from, --to, --to-cidr, --ports or --protocol, or --all if that is meant")
	}
	return out, nil
}
