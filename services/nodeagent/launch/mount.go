package launch

import (
	"syscall"

	"appswitch.io/services/nodeagent/launch/internal/text"
	"appswitch.io/services/nodeagent/launch/wire"
)

const resolvConf = "/etc/resolv.conf"

// nameServices are sockets through which the C library asks others to look names up, past the filter: AF_UNIX is not
// notified. Which of them exist depends on the machine, and some are links to others.
var nameServices = []string{
	"/run/nscd/socket",
	"/var/run/nscd/socket",
	"/run/systemd/resolve/io.systemd.Resolve",
	"/run/systemd/resolve/io.systemd.Resolve.Monitor",
}

// overrideNames gives the calling thread's new mount namespace the agent's resolv.conf and takes the name service
// sockets away. Later mounts of the host still appear in it.
func overrideNames(runDir string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SLAVE, ""); err != nil {
		return text.Wrap(err, "detach the mount namespace")
	}
	source := runDir + "/" + wire.ResolvConfName
	// The C library does without a resolv.conf; then there is nothing to cover.
	if exists(resolvConf) {
		if err := bind(source, resolvConf); err != nil {
			return text.Wrap(err, "mount ", source, " on ", resolvConf)
		}
	}
	for _, path := range openNameServices() {
		if !isSocket(path) {
			continue // a link to one that is covered by now
		}
		if err := bind("/dev/null", path); err != nil {
			return text.Wrap(err, "cover ", path)
		}
	}
	return nil
}

// bind mounts a file on another; links are followed.
func bind(source, target string) error {
	return syscall.Mount(source, target, "", syscall.MS_BIND, "")
}

// openNameServices lists the name service sockets of this machine.
func openNameServices() []string {
	var found []string
	for _, path := range nameServices {
		if isSocket(path) {
			found = append(found, path)
		}
	}
	return found
}

func isSocket(path string) bool {
	var st syscall.Stat_t
	return syscall.Stat(path, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFSOCK
}

func exists(path string) bool {
	var st syscall.Stat_t
	return syscall.Stat(path, &st) == nil
}
