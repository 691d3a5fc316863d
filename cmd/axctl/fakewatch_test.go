package main

import (
	"fmt"
	"slices"
	"time"

	registryv1 "appswitch.io/proto/gen/appswitch/registry/v1"
	typev1 "appswitch.io/proto/gen/appswitch/type/v1"
	"google.golang.org/grpc"
)

// Watch sends the list, each record in a part of its own, and then what becomes of the virtual services, the only records
// of a script that change.
func (d *fakeDaemon) Watch(req *registryv1.WatchRequest, stream grpc.ServerStreamingServer[registryv1.WatchResponse]) error {
	wanted := func(k registryv1.Kind) bool { return len(req.GetKinds()) == 0 || slices.Contains(req.GetKinds(), k) }
	d.mu.Lock()
	revision, known := d.revision, slices.Clone(d.vservices)
	d.mu.Unlock()
	var list []*registryv1.Change
	if wanted(registryv1.Kind_KIND_NODE) {
		for _, n := range d.nodes {
			list = append(list, put(&registryv1.Record{Value: &registryv1.Record_Node{Node: n}}))
		}
	}
	if wanted(registryv1.Kind_KIND_APP) {
		for _, a := range d.apps {
			list = append(list, put(&registryv1.Record{Value: &registryv1.Record_App{App: a}}))
		}
	}
	if wanted(registryv1.Kind_KIND_ENDPOINT) {
		for _, e := range d.endpoints {
			list = append(list, put(&registryv1.Record{Value: &registryv1.Record_Endpoint{Endpoint: e}}))
		}
	}
	if wanted(registryv1.Kind_KIND_VIRTUAL_SERVICE) {
		for _, v := range known {
			list = append(list, put(&registryv1.Record{Value: &registryv1.Record_VirtualService{VirtualService: v}}))
		}
	}
	for i := 0; i == 0 || i < len(list); i++ {
		part := list[min(i, len(list)):min(i+1, len(list))]
		if err := stream.Send(&registryv1.WatchResponse{TableId: "t", Revision: revision, List: true, Complete: i+1 >= len(list), Changes: part}); err != nil {
			return err
		}
	}
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(10 * time.Millisecond):
		}
		d.mu.Lock()
		now, after := d.revision, slices.Clone(d.vservices)
		d.mu.Unlock()
		if now == revision || !wanted(registryv1.Kind_KIND_VIRTUAL_SERVICE) {
			continue
		}
		if err := stream.Send(&registryv1.WatchResponse{TableId: "t", Revision: now, Complete: true, Changes: difference(known, after)}); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		revision, known = now, after
	}
}

func difference(before, after []*typev1.VirtualService) (out []*registryv1.Change) {
	for _, v := range before {
		if !slices.ContainsFunc(after, func(w *typev1.VirtualService) bool { return w.GetName() == v.GetName() }) {
			key := &registryv1.RecordKey{Kind: registryv1.Kind_KIND_VIRTUAL_SERVICE, Key: v.GetName()}
			out = append(out, &registryv1.Change{Op: &registryv1.Change_Delete{Delete: key}})
		}
	}
	for _, v := range after {
		if !slices.Contains(before, v) {
			out = append(out, put(&registryv1.Record{Value: &registryv1.Record_VirtualService{VirtualService: v}}))
		}
	}
	return out
}

func put(r *registryv1.Record) *registryv1.Change {
	return &registryv1.Change{Op: &registryv1.Change_Put{Put: r}}
}
