package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"appswitch.io/internal/config"
	"appswitch.io/internal/route"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
)

// forgetInterval is how often the agent forgets endpoints that failed long ago.
const forgetInterval = 10 * time.Second

func outlierFlags(fs *pflag.FlagSet, c *route.OutlierConfig) {
	fs.IntVar(&c.Failures, "outlier-failures", c.Failures, "failed connects in a row after which this node leaves a server out for a while; 0: never")
	fs.DurationVar(&c.Base, "outlier-base-time", c.Base, "for how long at first; each further time takes twice as long")
	fs.DurationVar(&c.Max, "outlier-max-time", c.Max, "for how long at most")
	fs.IntVar(&c.Share, "outlier-max-share", c.Share, "percentage of a service's servers that is left out at most; one may be in any case, and one always stays")
}

// liveOutliers lets the options change while the agent runs. Each is checked together with the others as they are loaded,
// whichever of them has changed.
func (s *Service) liveOutliers(live config.Live) {
	for _, name := range []string{"outlier-failures", "outlier-base-time", "outlier-max-time", "outlier-max-share"} {
		live[name] = func(fs *pflag.FlagSet) error {
			var cfg route.OutlierConfig
			var errs [4]error
			cfg.Failures, errs[0] = fs.GetInt("outlier-failures")
			cfg.Base, errs[1] = fs.GetDuration("outlier-base-time")
			cfg.Max, errs[2] = fs.GetDuration("outlier-max-time")
			cfg.Share, errs[3] = fs.GetInt("outlier-max-share")
			if err := errors.Join(errs[:]...); err != nil {
				return err
			}
			if err := cfg.Validate(); err != nil {
				return fmt.Errorf("--outlier-%w", err)
			}
			s.outliers.Configure(cfg)
			return nil
		}
	}
}

// forgetOutliers forgets what is long past until ctx ends.
func (s *Service) forgetOutliers(ctx context.Context) error {
	tick := time.NewTicker(forgetInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s.outliers.Expire(now)
		}
	}
}

// registerOutliers registers the metrics of ejections.
func registerOutliers(o *route.Outliers, r prometheus.Registerer) error {
	return errors.Join(
		r.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_outlier_ejections_total",
			Help: "Times that an endpoint was left out because connects to it failed.",
		}, func() float64 { return float64(o.Ejections()) })),
		r.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "appswitch_nodeagent_outliers_forgotten_total",
			Help: "Endpoints whose failures were forgotten because there were too many.",
		}, func() float64 { return float64(o.Forgotten()) })),
		r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "appswitch_nodeagent_outliers_ejected",
			Help: "Endpoints that are left out now because connects to them fail.",
		}, func() float64 {
			n, now := 0, time.Now()
			for _, e := range o.List() {
				if now.Before(e.Until) {
					n++
				}
			}
			return float64(n)
		})),
	)
}
