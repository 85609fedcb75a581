package rest

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// enumWords translates the values of one enum between the contract's names
// (MESSAGE_STATUS_QUEUED) and the words of REST ("queued").
type enumWords struct {
	byNumber map[protoreflect.EnumNumber]string
	byWord   map[string]string // word or full name → full name
}

var wordTables sync.Map // protoreflect.FullName → *enumWords; filled once per enum, never changed

func wordsOf(ed protoreflect.EnumDescriptor) *enumWords {
	if w, ok := wordTables.Load(ed.FullName()); ok {
		return w.(*enumWords)
	}
	w := &enumWords{byNumber: map[protoreflect.EnumNumber]string{}, byWord: map[string]string{}}
	prefix := upperSnake(string(ed.Name())) + "_"
	values := ed.Values()
	for i := range values.Len() {
		v := values.Get(i)
		word := strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
		w.byNumber[v.Number()] = word
		w.byWord[word] = string(v.Name())
		w.byWord[string(v.Name())] = string(v.Name())
	}
	actual, _ := wordTables.LoadOrStore(ed.FullName(), w)
	return actual.(*enumWords)
}

// append writes the word of n; a number that the contract does not know is
// written as a number, as protojson does.
func (w *enumWords) append(b []byte, n protoreflect.EnumNumber) []byte {
	word, ok := w.byNumber[n]
	if !ok {
		return strconv.AppendInt(b, int64(n), 10)
	}
	b = append(b, '"')
	b = append(b, word...)
	return append(b, '"')
}

// upperSnake turns MessageStatus into MESSAGE_STATUS.
func upperSnake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

func sortedKeys(m protoreflect.Map) []protoreflect.MapKey {
	keys := make([]protoreflect.MapKey, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return strings.Compare(a.String(), b.String()) })
	return keys
}
