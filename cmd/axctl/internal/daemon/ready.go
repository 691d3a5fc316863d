package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"appswitch.io/services/nodeagent/launch/wire"
)

const (
	readyEvery    = 20 * time.Millisecond // between looks, until the daemon is ready
	readyPatience = 30 * time.Second      // after which, and again every so often, the log says what is missing
	readyTimeout  = time.Second           // of one look
)

// watchReadiness says once in the log that programs can be run, and returns when ctx ends.
func (d *daemon) watchReadiness(ctx context.Context, o *Options) error {
	start, said := time.Now(), time.Now()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: readyTimeout}
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		err := d.look(ctx, o, client)
		if err == nil {
			d.missing.Store(nil)
			d.log.Info("ready", "after", time.Since(start).Round(time.Millisecond))
			<-ctx.Done()
			return ctx.Err()
		}
		d.missing.Store(new(err.Error()))
		if time.Since(said) >= readyPatience {
			said = time.Now()
			d.log.Warn("not ready yet", "after", time.Since(start).Round(time.Second), "missing", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look reports the first thing that programs would have to wait for.
func (d *daemon) look(ctx context.Context, o *Options, client *http.Client) error {
	if !d.router.Ready() {
		return errors.New("the router has not seen the service table")
	}
	if !d.resolver.Ready() {
		return errors.New("the resolver has not seen the service table")
	}
	for _, addr := range o.restAddrs() {
		if err := lookAtREST(ctx, client, addr); err != nil {
			return fmt.Errorf("REST: %w", err)
		}
	}
	dialer := net.Dialer{Timeout: readyTimeout}
	conn, err := dialer.DialContext(ctx, "unixpacket", filepath.Join(o.NodeAgent.RunDir, wire.SocketName))
	if err != nil {
		return fmt.Errorf("the agent's socket: %w", err)
	}
	return conn.Close()
}

// lookAtREST asks for the nodes, which takes the registry; beyond loopback, where that takes a certificate, it connects.
func lookAtREST(ctx context.Context, client *http.Client, addr string) error {
	if a, err := netip.ParseAddrPort(addr); err == nil && !a.Addr().IsLoopback() {
		conn, err := (&net.Dialer{Timeout: readyTimeout}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v1/nodes", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// health answers /healthz of the debug port.
func (d *daemon) health(context.Context) error {
	if m := d.missing.Load(); m != nil {
		return fmt.Errorf("not ready: %s", strings.TrimSpace(*m))
	}
	return nil
}
