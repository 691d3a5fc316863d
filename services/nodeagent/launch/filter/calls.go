package filter

// machine is what differs between architectures. Numbers of system calls are ABI: they never change.
type machine struct {
	audit        uint32 // AUDIT_ARCH_* of the native ABI
	foreignAudit uint32 // of the 32-bit ABI that the same kernel may run
	x32          uint32 // from this number on calls are of the x32 ABI; 0 where there is none
	calls        []rule
	foreignCalls []rule
}

const (
	auditX8664   = 0xc000003e
	auditI386    = 0x40000003
	auditAArch64 = 0xc00000b7
	auditARM     = 0x40000028
	x32Bit       = 0x40000000
)

var machines = map[string]machine{
	"amd64": {
		audit: auditX8664, foreignAudit: auditI386, x32: x32Bit,
		calls: []rule{
			{32, toUDP}, // dup
			{41, toSocket},
			{42, toNotify},     // connect
			{43, toNotify},     // accept
			{44, toAddress},    // sendto
			{45, toAddress},    // recvfrom
			{46, toSendmsg},    // sendmsg
			{47, toUDP},        // recvmsg
			{49, toNotify},     // bind
			{50, toNotify},     // listen
			{51, toNotify},     // getsockname
			{52, toNotify},     // getpeername
			{54, toSetsockopt}, // setsockopt
			{55, toGetsockopt}, // getsockopt
			{72, toFcntl},
			{288, toNotify},   // accept4
			{299, toUDP},      // recvmmsg
			{307, toSendmmsg}, // sendmmsg
			{425, toNoSys},    // io_uring_setup
			{426, toNoSys},    // io_uring_enter
			{427, toNoSys},    // io_uring_register
		},
		foreignCalls: refuse(
			102,           // socketcall
			337, 345, 359, // recvmmsg, sendmmsg, socket
			361, 362, 363, 364, // bind, connect, listen, accept4
			365, 366, 367, 368, // getsockopt, setsockopt, getsockname, getpeername
			369, 370, 371, 372, // sendto, sendmsg, recvfrom, recvmsg
			417,           // recvmmsg_time64
			425, 426, 427, // io_uring_setup, io_uring_enter, io_uring_register
		),
	},
	"arm64": {
		audit: auditAArch64, foreignAudit: auditARM,
		calls: []rule{
			{23, toUDP}, // dup
			{25, toFcntl},
			{198, toSocket},
			{200, toNotify},     // bind
			{201, toNotify},     // listen
			{202, toNotify},     // accept
			{203, toNotify},     // connect
			{204, toNotify},     // getsockname
			{205, toNotify},     // getpeername
			{206, toAddress},    // sendto
			{207, toAddress},    // recvfrom
			{208, toSetsockopt}, // setsockopt
			{209, toGetsockopt}, // getsockopt
			{211, toSendmsg},    // sendmsg
			{212, toUDP},        // recvmsg
			{242, toNotify},     // accept4
			{243, toUDP},        // recvmmsg
			{269, toSendmmsg},   // sendmmsg
			{425, toNoSys},      // io_uring_setup
			{426, toNoSys},      // io_uring_enter
			{427, toNoSys},      // io_uring_register
		},
		foreignCalls: refuse(
			102,                // socketcall of the old ABI
			281, 282, 283, 284, // socket, bind, connect, listen
			285, 286, 287, // accept, getsockname, getpeername
			290, 292, 294, 295, // sendto, recvfrom, setsockopt, getsockopt
			296, 297, // sendmsg, recvmsg
			365, 366, 374, // recvmmsg, accept4, sendmmsg
			417,           // recvmmsg_time64
			425, 426, 427, // io_uring_setup, io_uring_enter, io_uring_register
		),
	},
}

func refuse(numbers ...uint32) []rule {
	rules := make([]rule, len(numbers))
	for i, n := range numbers {
		rules[i] = rule{n, toNoSys}
	}
	return rules
}

// families is what becomes of socket() by its domain. AF_UNIX, AF_NETLINK and whatever else is not here stays in the
// application's own network namespace and is allowed; the families with EAFNOSUPPORT carry traffic of their own past
// the agent, and programs that know them fall back to TCP on that error.
var families = []rule{
	{2, toNotify},       // AF_INET
	{10, toNotify},      // AF_INET6
	{17, toPerm},        // AF_PACKET
	{21, toAFNoSupport}, // AF_RDS
	{30, toAFNoSupport}, // AF_TIPC
	{41, toAFNoSupport}, // AF_KCM
	{43, toAFNoSupport}, // AF_SMC
	{44, toAFNoSupport}, // AF_XDP
}

// duplications are the commands of fcntl that give a descriptor another number.
var duplications = []rule{
	{0, toUDP},    // F_DUPFD
	{1030, toUDP}, // F_DUPFD_CLOEXEC
}

// levels of setsockopt that have forbidden options.
var levels = []rule{
	{1, toSockLevel},  // SOL_SOCKET
	{0, toIPLevel},    // IPPROTO_IP
	{41, toIPv6Level}, // IPPROTO_IPV6
	{6, toTCPLevel},   // IPPROTO_TCP
}

// readLevels are the levels of getsockopt that have options which tell the real addresses of a connection, or of which the agent
// knows the application's value.
var readLevels = []rule{
	{1, toGetSockLevel},  // SOL_SOCKET
	{0, toGetIPLevel},    // IPPROTO_IP
	{41, toGetIPv6Level}, // IPPROTO_IPV6
}

// forbiddenOptions would let an injected socket, which lives in the host's network namespace, choose its own way
// through the host or take over addresses and connections, or see what is behind virtual ones. The last are refused as by a
// kernel that doesn't have them: proxies ask for the original destination of every connection, and go on with getsockname.
// Groups are refused as on a network without multicast: they would be the host's.
var forbiddenOptions = map[label][]rule{
	toSockLevel: {
		{25, toPerm}, // SO_BINDTODEVICE
		{36, toPerm}, // SO_MARK
		{62, toPerm}, // SO_BINDTOIFINDEX
	},
	toIPLevel: {
		{19, toPerm},  // IP_TRANSPARENT
		{35, toNoDev}, // IP_ADD_MEMBERSHIP
		{39, toNoDev}, // IP_ADD_SOURCE_MEMBERSHIP
		{42, toNoDev}, // MCAST_JOIN_GROUP
		{46, toNoDev}, // MCAST_JOIN_SOURCE_GROUP
	},
	toIPv6Level: {
		{75, toPerm},  // IPV6_TRANSPARENT
		{20, toNoDev}, // IPV6_ADD_MEMBERSHIP
		{42, toNoDev}, // MCAST_JOIN_GROUP
		{46, toNoDev}, // MCAST_JOIN_SOURCE_GROUP
	},
	toTCPLevel: {{19, toPerm}}, // TCP_REPAIR

	toGetSockLevel: {{28, toNoProtoOpt}}, // SO_PEERNAME
	toGetIPLevel:   {{80, toNoProtoOpt}}, // SO_ORIGINAL_DST: the host's connection tracking
	toGetIPv6Level: {
		{80, toNoProtoOpt}, // IP6T_SO_ORIGINAL_DST
		{26, toNotify},     // IPV6_V6ONLY: the real socket may be open to IPv4
	},
}
