package nodeagent

import (
	"appswitch.io/internal/config"
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
	s.liveOutliers(live)
	return live
}
