package config

import (
	"fmt"
	"strings"
)

// applyFlags writes the flags in args over the environment. It returns the
// problems it met and whether help was asked for.
func applyFlags(fields []field, args []string, values map[string]string) (problems []string, help bool) {
	known := make(map[string]field)
	for _, f := range fields {
		if f.flag != "" {
			known[f.flag] = f
		}
	}
	for i := 0; i < len(args); i++ {
		name, value, hasValue := splitFlag(args[i])
		if name == "h" || name == "help" {
			return nil, true
		}
		f, ok := known[name]
		switch {
		case name == "":
			problems = append(problems, fmt.Sprintf("%s: unexpected argument", args[i]))
			continue
		case !ok:
			problems = append(problems, fmt.Sprintf("--%s: unknown flag", name))
			continue
		case !hasValue && f.isBool:
			value = "true"
		case !hasValue && i+1 < len(args):
			i++
			value = args[i]
		case !hasValue:
			problems = append(problems, fmt.Sprintf("--%s: needs a value", name))
			continue
		}
		values[f.key] = value
	}
	return problems, false
}

// splitFlag reads "--name=value", "--name" and their forms with one dash. The
// name is empty when arg is not a flag.
func splitFlag(arg string) (name, value string, hasValue bool) {
	trimmed := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
	if trimmed == arg {
		return "", "", false
	}
	return strings.Cut(trimmed, "=")
}
