// Package config reads a program's settings from the environment and from
// flags into one struct, and reports everything that is wrong with them at once.
//
// Fields are tagged as for github.com/caarlos0/env (`env:"PORT" envDefault:"8080"`,
// `env:"DATABASE_URL,required"`); `flag:"port"` makes the same setting reachable
// as --port, and `help:"…"` describes it in Usage. A flag wins over the
// environment. A struct, or a struct nested in it, may have a method
// `Validate() error`; errors.Join reports several problems.
package config

import (
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"

	"github.com/caarlos0/env/v11"
)

// ErrHelp is returned by Load when the arguments ask for help (-h, --help).
var ErrHelp = errors.New("help requested")

// Error lists every problem of a configuration.
type Error struct {
	// Problems has one line per problem, each beginning with the name of the
	// setting. No line holds the value of a Secret.
	Problems []string
}

// Error returns the problems, one line each.
func (e *Error) Error() string { return strings.Join(e.Problems, "\n") }

// Load fills a T from environ ("KEY=value" lines, as os.Environ returns them)
// and args (command-line arguments without the program name). The error is
// ErrHelp or an *Error.
func Load[T any](environ []string, args ...string) (T, error) {
	var cfg T
	fields := fieldsOf(reflect.TypeFor[T]())
	values := env.ToMap(environ)
	problems, help := applyFlags(fields, args, values)
	if help {
		return cfg, ErrHelp
	}
	if err := env.ParseWithOptions(&cfg, env.Options{Environment: values}); err != nil {
		problems = append(problems, describe(err, fields)...)
	}
	if len(problems) == 0 {
		problems = validate(reflect.ValueOf(&cfg).Elem())
	}
	if len(problems) > 0 {
		sort.Strings(problems)
		return cfg, &Error{Problems: problems}
	}
	return cfg, nil
}

// Usage returns one line per setting of T: its variable, flag, default and help.
func Usage[T any]() string {
	var b strings.Builder
	for _, f := range fieldsOf(reflect.TypeFor[T]()) {
		name := f.key
		if f.flag != "" {
			name += ", --" + f.flag
		}
		switch {
		case f.required:
			name += " (required)"
		case f.fallback != "":
			name += " (default " + f.fallback + ")"
		}
		fmt.Fprintf(&b, "  %s\n", name)
		if f.help != "" {
			fmt.Fprintf(&b, "      %s\n", f.help)
		}
	}
	return b.String()
}

// Names returns the variables of T.
func Names[T any]() []string {
	var names []string
	for _, f := range fieldsOf(reflect.TypeFor[T]()) {
		names = append(names, f.key)
	}
	return names
}

// field is one setting of a configuration struct.
type field struct {
	name, key, flag, fallback, help string
	required, isBool                bool
}

// fieldsOf lists the settings of a struct type and of the structs inside it.
func fieldsOf(t reflect.Type) []field { return collect(t, "") }

func collect(t reflect.Type, prefix string) []field {
	var all []field
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		sf := t.Field(i)
		if !sf.IsExported() {
			continue
		}
		tag, tagged := sf.Tag.Lookup("env")
		if !tagged {
			all = append(all, collect(sf.Type, prefix+sf.Tag.Get("envPrefix"))...)
			continue
		}
		key, options, _ := strings.Cut(tag, ",")
		all = append(all, field{
			name: sf.Name, key: prefix + key, flag: sf.Tag.Get("flag"),
			fallback: sf.Tag.Get("envDefault"), help: sf.Tag.Get("help"),
			required: strings.Contains(options, "required") || strings.Contains(options, "notEmpty"),
			isBool:   sf.Type.Kind() == reflect.Bool,
		})
	}
	return all
}

// describe turns what env reports into one line per setting.
func describe(err error, fields []field) []string {
	var aggregate env.AggregateError
	if !errors.As(err, &aggregate) {
		return []string{err.Error()}
	}
	lines := make([]string, 0, len(aggregate.Errors))
	for _, e := range aggregate.Errors {
		lines = append(lines, describeOne(e, fields))
	}
	return lines
}

func describeOne(err error, fields []field) string {
	var unset env.VarIsNotSetError
	var empty env.EmptyVarError
	var parse env.ParseError
	switch {
	case errors.As(err, &unset):
		return unset.Key + ": is required"
	case errors.As(err, &empty):
		return empty.Key + ": must not be empty"
	case errors.As(err, &parse):
		return fmt.Sprintf("%s: is not a valid %s: %s", keyOf(parse.Name, fields), kindName(parse.Type), oneLine(parse.Err))
	default:
		return oneLine(err)
	}
}

// keyOf finds the variable of a Go field; fields that share a name are all named.
func keyOf(name string, fields []field) string {
	var keys []string
	for _, f := range fields {
		if f.name == name {
			keys = append(keys, f.key)
		}
	}
	if len(keys) == 0 {
		return name
	}
	return strings.Join(keys, " or ")
}

func kindName(t reflect.Type) string {
	if t.String() == "time.Duration" {
		return "duration (such as 500ms or 2m)"
	}
	return t.String()
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// validate calls Validate on the struct and on every struct inside it.
func validate(v reflect.Value) []string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || !v.CanAddr() {
		return nil
	}
	var problems []string
	if own, ok := v.Addr().Interface().(interface{ Validate() error }); ok {
		problems = append(problems, lines(own.Validate())...)
	}
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			problems = append(problems, validate(v.Field(i))...)
		}
	}
	return problems
}

func lines(err error) []string {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []string
		for _, e := range joined.Unwrap() {
			all = append(all, lines(e)...)
		}
		return all
	}
	return []string{oneLine(err)}
}
