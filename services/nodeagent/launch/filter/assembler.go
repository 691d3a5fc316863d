package filter

import (
	"slices"
	"strconv"

	"appswitch.io/services/nodeagent/launch/internal/text"
)

// rule sends a value (a call's number, or an argument) to a label.
type rule struct {
	value uint32
	to    label
}

// instruction is one whose jumps still name labels.
type instruction struct {
	op     uint16
	k      uint32
	jt, jf label
	jumps  bool
}

// assembler collects instructions; jumps go forward only, as the kernel demands.
type assembler struct {
	code []instruction
	at   map[label]int
	next label
}

func (a *assembler) label() label {
	l := a.next
	a.next++
	return l
}

func (a *assembler) mark(l label) { a.at[l] = len(a.code) }

// after is a label for the instruction that follows the one being written.
func (a *assembler) after() label {
	l := a.label()
	a.at[l] = len(a.code) + 1
	return l
}

func (a *assembler) load(offset uint32) {
	a.code = append(a.code, instruction{op: opLoad, k: offset})
}

func (a *assembler) jump(op uint16, k uint32, yes, no label) {
	a.code = append(a.code, instruction{op: op, k: k, jt: yes, jf: no, jumps: true})
}

// choose compares one after the other; right for a handful of values.
func (a *assembler) choose(rules []rule, otherwise label) {
	for i, r := range rules {
		no := otherwise
		if i+1 < len(rules) {
			no = a.after()
		}
		a.jump(opEqual, r.value, r.to, no)
	}
}

// search finds the number in the accumulator by halving, so that every call, and above all the frequent ones that no
// rule names, passes after a few comparisons. What no rule names is allowed.
func (a *assembler) search(rules []rule) {
	rules = slices.Clone(rules)
	slices.SortFunc(rules, func(x, y rule) int { return int(x.value) - int(y.value) })
	a.halve(rules)
}

func (a *assembler) halve(rules []rule) {
	if len(rules) <= 2 {
		a.choose(rules, toAllow)
		return
	}
	middle := len(rules) / 2
	upper := a.label()
	a.jump(opAtLeast, rules[middle].value, upper, a.after())
	a.halve(rules[:middle])
	a.mark(upper)
	a.halve(rules[middle:])
}

// link replaces labels by distances.
func (a *assembler) link() ([]Instruction, error) {
	out := make([]Instruction, len(a.code))
	for i, in := range a.code {
		out[i] = Instruction{Code: in.op, K: in.k}
		if !in.jumps {
			continue
		}
		var err error
		if out[i].Jt, err = a.distance(i, in.jt); err != nil {
			return nil, err
		}
		if out[i].Jf, err = a.distance(i, in.jf); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *assembler) distance(from int, to label) (uint8, error) {
	at, ok := a.at[to]
	d := at - from - 1
	if !ok || d < 0 || d > 255 {
		return 0, text.Error("system call filter: the jump at ", strconv.Itoa(from), " spans ", strconv.Itoa(d), " instructions, want 0 to 255")
	}
	return uint8(d), nil
}
