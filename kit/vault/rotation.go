package vault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Rotation counts what a change of the master key found, by kind.
type Rotation struct {
	Kinds []RotationKind `json:"kinds"`
}

// RotationKind is one kind of sealed values.
type RotationKind struct {
	// Kind names the values, for example "channels".
	Kind string `json:"kind"`
	// Seen is how many rows there are, Changed how many were wrapped by the current key
	// just now, or would be, and Failed how many no key opens.
	Seen    int `json:"seen"`
	Changed int `json:"changed"`
	Failed  int `json:"failed"`
}

// Note counts one row. A value that does not open is counted; any other error comes
// back.
func (r *Rotation) Note(kind string, changed bool, err error) error {
	i := slices.IndexFunc(r.Kinds, func(k RotationKind) bool { return k.Kind == kind })
	if i < 0 {
		i = len(r.Kinds)
		r.Kinds = append(r.Kinds, RotationKind{Kind: kind})
	}
	k := &r.Kinds[i]
	k.Seen++
	switch {
	case errors.Is(err, ErrUnknownKey), errors.Is(err, ErrCorrupt):
		k.Failed++
		return nil
	case err != nil:
		return err
	case changed:
		k.Changed++
	}
	return nil
}

// Failed is how many values no key opens.
func (r *Rotation) Failed() (n int) {
	for _, k := range r.Kinds {
		n += k.Failed
	}
	return n
}

// ParsePrevious reads former master keys, separated by commas; none for an empty text.
func ParsePrevious(text string) (keys [][]byte, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for i, one := range strings.Split(text, ",") {
		key, err := ParseKey(one)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
