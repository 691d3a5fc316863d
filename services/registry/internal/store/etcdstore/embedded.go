package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"appswitch.io/internal/host"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"golang.org/x/sys/unix"
)

// Settings of the embedded server.
const (
	memberName   = "appswitch"
	maxSocket    = 100              // bytes of a socket's path that are sure to fit
	history      = "10m"            // kept before compaction: longer than any watcher is meant to be away
	quota        = 2 << 30          // bytes of the database
	startTimeout = 60 * time.Second // for reading back the log
	stateFlag    = "--state-dir"    // names the directory
	spaceFirst   = 128 << 20        // bytes that etcd takes in an empty directory: its log has 64 MB from the start
	spaceAgain   = 16 << 20         // bytes that it takes in one that it knows
)

var errInUse = errors.New("another registry is using it: stop that one, or choose another --state-dir")

// runEmbedded runs a single-member etcd server. An error means that it can't start or has died.
func (s *Store) runEmbedded(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return host.DirError(stateFlag, err)
	}
	unlock, err := lockDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	cfg, err := s.embedConfig()
	if err != nil {
		return err
	}
	if err := checkSpace(s.cfg.Dir, cfg.Dir); err != nil {
		return err
	}
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return s.startError(err)
	}
	defer func() {
		s.log.quiet()
		server.Close()
	}()
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-server.Server.ReadyNotify():
	case <-ctx.Done():
		return nil
	case err := <-server.Err():
		return fmt.Errorf("etcd: %w", err)
	case <-server.Server.StopNotify():
		return errors.New("etcd stopped while starting; its log says why")
	case <-timeout.C:
		return fmt.Errorf("etcd in %s not ready within %s", s.cfg.Dir, startTimeout)
	}
	s.client = v3client.New(server.Server)
	defer s.client.Close()
	close(s.ready)
	s.cfg.Log.Info("etcd is running in this process", "dir", s.cfg.Dir, "listen", s.listenText())
	if s.cfg.Listen.IsValid() && !s.cfg.Listen.IsLoopback() {
		s.cfg.Log.Warn("etcd is neither encrypted nor authenticated: whoever reaches it can change the table", "listen", s.listenText())
	}
	if s.cfg.UnsafeNoFsync {
		s.cfg.Log.Warn("etcd does not wait for the disk: a power failure loses the table")
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Err():
		return fmt.Errorf("etcd: %w", err)
	case <-server.Server.StopNotify():
		return errors.New("etcd has stopped; its log says why")
	}
}

// checkSpace makes sure that etcd finds the space to start: without it etcd panics.
func checkSpace(dir, etcd string) error {
	need := uint64(spaceAgain)
	if _, err := os.Stat(filepath.Join(etcd, "member")); err != nil {
		need = spaceFirst
	}
	free, err := host.FreeSpace(dir)
	if err != nil {
		return host.DirError(stateFlag, err)
	}
	return host.CheckSpace(stateFlag, dir, free, need)
}

func (s *Store) embedConfig() (*embed.Config, error) {
	cfg := embed.NewConfig()
	cfg.Name = memberName
	cfg.Dir = filepath.Join(s.cfg.Dir, "etcd")
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(s.log.zap())
	cfg.EnableGRPCGateway = false
	cfg.AutoCompactionMode = embed.CompactorModePeriodic
	cfg.AutoCompactionRetention = history
	cfg.QuotaBackendBytes = quota
	cfg.UnsafeNoFsync = s.cfg.UnsafeNoFsync
	// A single member elects itself: nothing is gained by waiting for others. The ticks are what a start waits for.
	cfg.TickMs, cfg.ElectionMs = 50, 500

	peer := netip.AddrPortFrom(s.cfg.Listen, s.cfg.PeerPort)
	if !s.cfg.Listen.IsValid() {
		peer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.cfg.PeerPort) // a name only: nothing listens
	}
	peerURL := url.URL{Scheme: "http", Host: peer.String()}
	cfg.AdvertisePeerUrls = []url.URL{peerURL}
	cfg.InitialCluster = memberName + "=" + peerURL.String()
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil, nil
	if s.cfg.Listen.IsValid() {
		client := url.URL{Scheme: "http", Host: netip.AddrPortFrom(s.cfg.Listen, s.cfg.ClientPort).String()}
		cfg.ListenPeerUrls = []url.URL{peerURL}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		return cfg, nil
	}
	socket, err := filepath.Abs(s.socketPath())
	if err != nil {
		return nil, fmt.Errorf("find state directory: %w", err)
	}
	if len(socket) > maxSocket {
		s.cfg.Log.Info("etcd has no socket: the path of the state directory is too long for one", "dir", s.cfg.Dir)
		return cfg, nil
	}
	client := url.URL{Scheme: "unix", Path: socket}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	return cfg, nil
}

func (s *Store) socketPath() string { return filepath.Join(s.cfg.Dir, "etcd.sock") }

func (s *Store) listenText() string {
	if s.cfg.Listen.IsValid() {
		return net.JoinHostPort(s.cfg.Listen.String(), strconv.Itoa(int(s.cfg.ClientPort)))
	}
	return s.socketPath()
}

func (s *Store) startError(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("start etcd: %w; choose other ports with --etcd-client-port and --etcd-peer-port", err)
	}
	return fmt.Errorf("start etcd in %s: %w", s.cfg.Dir, err)
}

// lockDir keeps a second server off the directory: etcd itself would wait for the first to end, for ever and silently.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, host.DirError(stateFlag, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("state directory %s: %w", dir, errInUse)
		}
		return nil, fmt.Errorf("lock state directory %s: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil
}
