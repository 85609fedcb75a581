package wire

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/turumba/turumba/kit/clock"
)

// Canonical is v as JSON with sorted keys, for comparing.
func Canonical(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

var variable = regexp.MustCompile(`\$\{(totp(?:\+1)?:)?([A-Za-z0-9_]+)\}`)

// Expand replaces ${name} in every string below v; a name that vars lacks stays.
// ${totp:name} is the code that an authenticator with the secret shows now,
// ${totp+1:name} the next one.
func Expand(v any, vars map[string]string) any {
	switch v := v.(type) {
	case string:
		return variable.ReplaceAllStringFunc(v, func(s string) string {
			m := variable.FindStringSubmatch(s)
			val, ok := vars[m[2]]
			switch {
			case !ok:
				return s
			case m[1] != "":
				return TotpCode(val, m[1] == "totp+1:")
			}
			return val
		})
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = Expand(e, vars)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = Expand(e, vars)
		}
		return out
	}
	return v
}

// TotpCode is the code of a secret now, or in its next step.
func TotpCode(secret string, next bool) string {
	at := clock.System().Now()
	if next {
		at = at.Add(30 * time.Second)
	}
	code, err := totp.GenerateCode(secret, at)
	if err != nil {
		return err.Error()
	}
	return code
}

// Lookup finds a dotted path in decoded JSON; numbers index lists.
func Lookup(v any, path string) (any, bool) {
	for part := range strings.SplitSeq(path, ".") {
		switch node := v.(type) {
		case map[string]any:
			next, ok := node[part]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			var i int
			if _, err := fmt.Sscanf(part, "%d", &i); err != nil || i < 0 || i >= len(node) {
				return nil, false
			}
			v = node[i]
		default:
			return nil, false
		}
	}
	return v, true
}
