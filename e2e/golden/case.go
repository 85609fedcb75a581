package golden

import (
	"bytes"
	"fmt"
	"io/fs"

	"gopkg.in/yaml.v3"

	"github.com/turumba/turumba/e2e/wire"
)

// File is one YAML file: the cases of one RPC.
type File struct {
	// RPC is the full method, for example
	// "turumba.account.v1.ContactService/CreateContact".
	RPC string `yaml:"rpc"`
	// Cases run in order, once per wire; later ones may use what earlier saved.
	Cases []Case `yaml:"cases"`
}

// Case is one call and what it must answer.
type Case struct {
	// Name says what the case shows.
	Name string `yaml:"name"`
	// RPC overrides the file's RPC, for a call that prepares the next case.
	RPC string `yaml:"rpc"`
	// As names the caller of the world: owner, viewer, outsider; "none" sends no
	// token, any other text is sent as the token.
	As string `yaml:"as"`
	// Request is the request in REST JSON (enum words), path variables included.
	Request map[string]any `yaml:"request"`
	// Raw, when set, is sent as the REST body instead; the gRPC wire skips the case.
	Raw string `yaml:"raw"`
	// Query is added to the REST query string as it is; the gRPC wire skips the case.
	Query string `yaml:"query"`
	// Key is the idempotency key.
	Key string `yaml:"key"`
	// Want is the answer.
	Want Want `yaml:"want"`
	// Save keeps parts of the answer: variable → dotted path.
	Save map[string]string `yaml:"save"`
}

// Want is the answer of a case.
type Want struct {
	// HTTP is the status over REST.
	HTTP int `yaml:"http"`
	// Code is the gRPC status name; when empty, the one of the reason, or OK.
	Code string `yaml:"code"`
	// Reason is the machine-readable code of an error.
	Reason string `yaml:"reason"`
	// Fields are the request fields that the error must name.
	Fields []string `yaml:"fields"`
	// Detail is a text that the error must contain.
	Detail string `yaml:"detail"`
	// Body is contained in the answer; maps and lists compare by what is named.
	Body map[string]any `yaml:"body"`
	// SameAs names an earlier case with the same error, byte for byte.
	SameAs string `yaml:"same_as"`
	// Absent are dotted paths that the answer must not have.
	Absent []string `yaml:"absent"`
}

// Load reads every file below dir.
func Load(fsys fs.FS, dir string) (map[string]File, error) {
	names, err := fs.Glob(fsys, dir+"/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("find cases: %w", err)
	}
	files := map[string]File{}
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("read cases: %w", err)
		}
		var f File
		dec := yaml.NewDecoder(bytes.NewReader(data))
		dec.KnownFields(true)
		if err := dec.Decode(&f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[name] = f
	}
	return files, nil
}

// contains reports the first place where got lacks what want names.
func contains(path string, want, got any) error {
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: want an object, got %v", path, got)
		}
		for k, w := range want {
			v, ok := g[k]
			if !ok {
				return fmt.Errorf("%s.%s is missing", path, k)
			}
			if err := contains(path+"."+k, w, v); err != nil {
				return err
			}
		}
		return nil
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(want) {
			return fmt.Errorf("%s: want %d items, got %v", path, len(want), got)
		}
		for i := range want {
			if err := contains(fmt.Sprintf("%s[%d]", path, i), want[i], g[i]); err != nil {
				return err
			}
		}
		return nil
	case string:
		if want == "*" && got != nil && got != "" {
			return nil
		}
	}
	if a, b := wire.Canonical(want), wire.Canonical(got); a != b {
		return fmt.Errorf("%s: want %s, got %s", path, a, b)
	}
	return nil
}
