// Package bounds computes from the contract how large a request can be, and holds
// bytes to it before they are decoded (ADR 0041). A message is as large as its fields,
// and a field as large as its rules (buf.validate) allow; a field without such a rule
// has no bound, and its RPC cannot be served.
package bounds

import (
	"errors"
	"fmt"
	"sync"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

const (
	// small is what a request has room for where its fields need no more.
	small = 256 << 10
	// largest is the most bytes of any message of a request.
	largest = 8 << 20
	// spare is what a request has room for beside its fields: white space in JSON.
	spare = 1 << 10
	// MaxValues is how many values one request may be made of: items of lists, entries
	// of maps, values in free data. It bounds what few bytes become in memory.
	MaxValues = 250_000
)

// Sizes of what has no rules of its own.
const (
	varint    = 10
	wellKnown = 32       // bytes of a Timestamp, a Duration or a wrapped number
	maskPaths = 200      // paths of a FieldMask
	maskBytes = 16 << 10 // bytes of a FieldMask
	email     = 320      // RFC 5321 section 4.5.3.1: 64 + @ + 255
	host      = 253      // RFC 1035 section 2.3.4
	address   = 64       // an IP address with its zone and prefix
)

// Limits are the most bytes of one message of a request.
type Limits struct {
	// Wire is the limit of the protobuf encoding.
	Wire int
	// JSON is the limit of the REST encoding, in which a byte may take six (\u0000).
	JSON int
}

// Of computes the limits of an RPC's request, of each message of a stream of them. It
// fails where a field has no bound.
func Of(md protoreflect.MethodDescriptor) (Limits, error) {
	if n, _ := proto.GetExtension(md.Options(), optionsv1.E_MaxRequestBytes).(uint32); n > 0 {
		return Limits{Wire: int(n), JSON: cap6(int(n))}, nil
	}
	m, err := planOf(md.Input())
	if err != nil {
		return Limits{}, fmt.Errorf("%s: %w", md.FullName(), err)
	}
	return m.limits(), nil
}

// OfMessage are the limits of a message wherever it comes, such as one line of many.
func OfMessage(md protoreflect.MessageDescriptor) (Limits, error) {
	m, err := planOf(md)
	if err != nil {
		return Limits{}, err
	}
	return m.limits(), nil
}

func (m *message) limits() Limits {
	if m.bytes > small {
		return Limits{Wire: min(largest, m.bytes+m.bytes/10), JSON: min(largest, 6*m.bytes)}
	}
	return Limits{Wire: min(small, m.bytes+m.bytes/10+spare), JSON: min(small, 6*m.bytes+spare)}
}

func cap6(n int) int { return min(largest, max(n, 6*n)) }

// message is what is known of one type of message.
type message struct {
	name   protoreflect.FullName
	bytes  int // the most that its encoding takes
	fields map[protowire.Number]*field
	byName map[string]*field // by JSON name and by name
	free   bool              // a google.protobuf.Struct, Value or ListValue
	opaque bool              // another well-known type: its inside is not looked at
}

// field is what is known of one field.
type field struct {
	name    string
	index   int // among the fields of its message
	many    bool
	isMap   bool
	most    int      // items or entries, where there are many
	packed  bool     // numbers that may come in one piece
	message *message // of a message, or of the values of a map of messages
}

var plans struct {
	sync.Mutex
	of map[protoreflect.FullName]*planned
}

type planned struct {
	message *message
	err     error
}

// planOf reads a message and all below it from the descriptors, once.
func planOf(md protoreflect.MessageDescriptor) (*message, error) {
	plans.Lock()
	defer plans.Unlock()
	if plans.of == nil {
		plans.of = map[protoreflect.FullName]*planned{}
	}
	return plan(md, nil)
}

func plan(md protoreflect.MessageDescriptor, above []protoreflect.FullName) (*message, error) {
	if p := plans.of[md.FullName()]; p != nil {
		return p.message, p.err
	}
	for _, name := range above {
		if name == md.FullName() {
			return nil, fmt.Errorf("%s contains itself", md.FullName())
		}
	}
	p := &planned{}
	p.message, p.err = read(md, append(above, md.FullName()))
	plans.of[md.FullName()] = p
	return p.message, p.err
}

func read(md protoreflect.MessageDescriptor, above []protoreflect.FullName) (*message, error) {
	m := &message{name: md.FullName(), fields: map[protowire.Number]*field{}, byName: map[string]*field{}}
	if md.ParentFile().Package() == "google.protobuf" {
		return wellKnownType(m)
	}
	var problems []error
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		f, n, err := fieldOf(fd, above)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		f.index = i
		m.bytes = sum(m.bytes, n)
		m.fields[fd.Number()], m.byName[fd.JSONName()], m.byName[f.name] = f, f, f
	}
	return m, errors.Join(problems...)
}

// wellKnownType gives the bound of a type of google.protobuf.
func wellKnownType(m *message) (*message, error) {
	m.opaque = true
	switch m.name {
	case "google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue":
		m.free, m.bytes = true, MaxFreeBytes
	case "google.protobuf.FieldMask":
		m.bytes = maskBytes
	case "google.protobuf.Empty":
	case "google.protobuf.Timestamp", "google.protobuf.Duration",
		"google.protobuf.BoolValue", "google.protobuf.Int32Value", "google.protobuf.Int64Value",
		"google.protobuf.UInt32Value", "google.protobuf.UInt64Value", "google.protobuf.DoubleValue", "google.protobuf.FloatValue":
		m.bytes = wellKnown
	default:
		return nil, fmt.Errorf("%s has no bound", m.name)
	}
	return m, nil
}

// fieldOf reads a field and the most bytes that it takes with all its items.
func fieldOf(fd protoreflect.FieldDescriptor, above []protoreflect.FullName) (*field, int, error) {
	rules, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	f := &field{name: string(fd.Name()), many: fd.IsList() || fd.IsMap(), isMap: fd.IsMap(), most: 1}
	tag := protowire.SizeTag(fd.Number())
	switch {
	case fd.IsMap():
		f.most = int(rules.GetMap().GetMaxPairs())
		key, err := one(f, fd.MapKey(), rules.GetMap().GetKeys(), above)
		if err != nil {
			return nil, 0, err
		}
		value, err := one(f, fd.MapValue(), rules.GetMap().GetValues(), above)
		if err != nil {
			return nil, 0, err
		}
		if f.most == 0 {
			return nil, 0, fmt.Errorf("%s has no max_pairs", fd.FullName())
		}
		return f, times(f.most, sum(tag, sum(varint, sum(key+2, value+2)))), nil
	case fd.IsList():
		f.most = int(rules.GetRepeated().GetMaxItems())
		n, err := one(f, fd, rules.GetRepeated().GetItems(), above)
		if err != nil {
			return nil, 0, err
		}
		if f.most == 0 {
			return nil, 0, fmt.Errorf("%s has no max_items", fd.FullName())
		}
		f.packed = n <= varint && fd.Message() == nil
		return f, times(f.most, sum(tag, n)), nil
	}
	n, err := one(f, fd, rules, above)
	return f, sum(tag, n), err
}

// one is the most bytes of one value of a field, its length included.
func one(f *field, fd protoreflect.FieldDescriptor, rules *validate.FieldRules, above []protoreflect.FullName) (int, error) {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		m, err := plan(fd.Message(), above)
		if err != nil {
			return 0, err
		}
		f.message = m
		return sum(m.bytes, protowire.SizeVarint(uint64(m.bytes))), nil
	case protoreflect.StringKind:
		n, ok := text(rules.GetString())
		if !ok {
			return 0, fmt.Errorf("%s has no max_len", fd.FullName())
		}
		return sum(n, protowire.SizeVarint(uint64(n))), nil
	case protoreflect.BytesKind:
		n := int(max(rules.GetBytes().GetMaxLen(), rules.GetBytes().GetLen()))
		if n == 0 {
			return 0, fmt.Errorf("%s has no max_len", fd.FullName())
		}
		return sum(n, protowire.SizeVarint(uint64(n))), nil
	default:
		return varint, nil
	}
}

// text is the most bytes of a text under its rules.
func text(r *validate.StringRules) (n int, ok bool) {
	switch {
	case r.HasMaxBytes():
		return int(r.GetMaxBytes()), true
	case r.HasLenBytes():
		return int(r.GetLenBytes()), true
	case r.HasMaxLen():
		return 4 * int(r.GetMaxLen()), true // characters, of up to four bytes
	case r.HasLen():
		return 4 * int(r.GetLen()), true
	case r.HasConst():
		return len(r.GetConst()), true
	case r.GetUuid(), r.GetTuuid():
		return 36, true
	case r.GetEmail():
		return email, true
	case r.GetHostname(), r.GetHostAndPort():
		return host + 6, true
	case r.GetIp(), r.GetIpv4(), r.GetIpv6(), r.GetIpWithPrefixlen(), r.GetIpPrefix():
		return address, true
	case r.HasPattern():
		return longest(r.GetPattern())
	}
	for _, s := range r.GetIn() {
		n = max(n, len(s))
	}
	return n, n > 0
}

// sum and times stop where a request has long been too large.
func sum(a, b int) int { return min(a+b, 1<<30) }

func times(a, b int) int {
	if a > 0 && b > (1<<30)/a {
		return 1 << 30
	}
	return a * b
}
