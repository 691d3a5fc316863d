package main

import (
	"context"

	nodeagentv1 "appswitch.io/proto/gen/appswitch/nodeagent/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ListDrains shows what is being drained of the script's drains, and takes one connection of each away.
func (d *fakeDaemon) ListDrains(context.Context, *nodeagentv1.ListDrainsRequest) (*nodeagentv1.ListDrainsResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &nodeagentv1.ListDrainsResponse{Node: "node1", NodeDraining: d.draining[""]}
	for _, p := range d.drains {
		if d.draining[""] || d.draining[p.GetAppId()] {
			resp.Drains = append(resp.Drains, &nodeagentv1.Drain{AppId: p.GetAppId(), Connections: p.GetConnections()})
			if p.Connections > 0 && p.GetAppName() != "stays" {
				p.Connections--
			}
		}
	}
	return resp, nil
}

// Drain drains the script's drains.
func (d *fakeDaemon) Drain(_ context.Context, req *nodeagentv1.DrainRequest) (*nodeagentv1.DrainResponse, error) {
	return &nodeagentv1.DrainResponse{}, d.drain(req.GetAppId(), true)
}

// Undrain ends that.
func (d *fakeDaemon) Undrain(_ context.Context, req *nodeagentv1.UndrainRequest) (*nodeagentv1.UndrainResponse, error) {
	return &nodeagentv1.UndrainResponse{}, d.drain(req.GetAppId(), false)
}

func (d *fakeDaemon) drain(app string, on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.drains {
		if app == "" || app == p.GetAppId() {
			if d.draining == nil {
				d.draining = map[string]bool{}
			}
			d.draining[app] = on
			return nil
		}
	}
	return status.Errorf(codes.NotFound, "app_id: application %q does not run on node node1", app)
}
