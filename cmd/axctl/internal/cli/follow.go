package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"appswitch.io/cmd/axctl/internal/api"
	"appswitch.io/cmd/axctl/internal/output"
	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
)

// watchPath is the stream of the service table, over REST.
const watchPath = "/v1/watch"

// batch is a WatchResponse as it comes over REST: the records stay as they are.
type batch struct {
	List     bool `json:"list"`
	Complete bool `json:"complete"`
	Changes  []struct {
		Put    map[string]json.RawMessage `json:"put"`
		Delete *struct {
			Kind string `json:"kind"`
			Key  string `json:"key"`
		} `json:"delete"`
	} `json:"changes"`
}

// follow calls each with the list, and again whenever it has changed, until the stream of the service table breaks or
// each fails.
func (r resource[T]) follow(ctx context.Context, client *api.Client, f *listFlags, each func([]item[T]) error) error {
	kinds := []registryv1.Kind{r.kind}
	implied := r.implied != nil && f.format.Value == output.FormatWide
	if implied {
		kinds = append(kinds, r.impliedBy...)
	}
	query := url.Values{}
	for _, k := range kinds {
		query.Add("kinds", k.String())
	}
	records := map[string]item[T]{}
	listing := false
	return client.Stream(ctx, watchPath, query, func(raw json.RawMessage) error {
		var b batch
		if err := json.Unmarshal(raw, &b); err != nil {
			return fmt.Errorf("decode %s of %s: %w", watchPath, client.Server(), err)
		}
		if b.List && !listing {
			records, listing = map[string]item[T]{}, true
		}
		if err := r.apply(records, b); err != nil {
			return fmt.Errorf("decode %s of %s: %w", watchPath, client.Server(), err)
		}
		if !b.Complete || !b.List && len(b.Changes) == 0 { // a part of the list, or a sign of life
			return nil
		}
		listing = false
		items := slices.Collect(maps.Values(records))
		if implied {
			more, err := r.implied(ctx, client)
			if err != nil {
				return err
			}
			for _, msg := range more {
				items = append(items, item[T]{msg: msg})
			}
		}
		return each(r.selected(items, f))
	})
}

// apply brings records, by key, to where a batch leads. Records of other kinds are passed over.
func (r resource[T]) apply(records map[string]item[T], b batch) error {
	for _, c := range b.Changes {
		if c.Delete != nil && c.Delete.Kind == r.kind.String() {
			delete(records, c.Delete.Key)
		}
		raw, ok := c.Put[r.record]
		if !ok {
			continue
		}
		it, err := r.decode(raw)
		if err != nil {
			return err
		}
		records[r.names(it.msg)[0]] = it
	}
	return nil
}
