package nodeagent

import (
	"fmt"

	"appswitch.io/internal/config"
	"appswitch.io/services/nodeagent/internal/admission"
	"github.com/spf13/pflag"
)

// Live returns the options that can change while the agent runs.
func (s *Service) Live() config.Live {
	live := config.Live{"node-labels": func(fs *pflag.FlagSet) error {
		list, err := fs.GetStringSlice("node-labels")
		if err != nil {
			return err
		}
		labels, err := Config{NodeLabels: list}.labels()
		if err != nil {
			return err
		}
		return s.publisher.Relabel(labels)
	}}
	live["admit"] = func(fs *pflag.FlagSet) error {
		list, err := fs.GetStringSlice("admit")
		if err != nil {
			return err
		}
		rules, err := admission.ParseRules(list)
		if err != nil {
			return fmt.Errorf("--admit: %w", err)
		}
		s.gate.Set(rules)
		return nil
	}
	s.liveOutliers(live)
	return live
}
