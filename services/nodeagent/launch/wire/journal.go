package wire

// The journal is a memory file (memfd) shared by the holder and each agent in turn, sealed against shrinking and
// growing. The agent lets the kernel write every received notification (struct seccomp_notif, seccomp_unotify(2))
// straight into a free slot, and clears the slot's id when the call is answered: after a crash, the slots whose id
// is not 0 are exactly the calls in flight, and whoever holds the listener can answer them.
// To the agent its content is hostile input: it names ids to ask the kernel about, nothing more.
const (
	JournalMagic    = 0x6c6e726a5f7861 // "ax_jrnl", little endian, in the first 8 bytes
	JournalHeader   = 4096             // bytes before the first slot
	JournalSlotSize = 96               // 80 of struct seccomp_notif, 8 for the cookie of a socket that is being installed, 8 reserved
	JournalSlots    = 4096             // calls in flight at once that a crash of the agent survives
	JournalSize     = JournalHeader + JournalSlots*JournalSlotSize
)
