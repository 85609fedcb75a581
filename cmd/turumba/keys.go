package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/process"
)

// keysConfig is what `keys rotate` takes besides the settings of `up`.
type keysConfig struct {
	single.Config
	DryRun bool `env:"KEYS_DRY_RUN" flag:"dry-run" help:"only count"`
	JSON   bool `env:"KEYS_JSON" flag:"json" help:"print one JSON object"`
}

func keys(ctx context.Context, environ, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] != "rotate" {
		fmt.Fprintf(stderr, "turumba keys rotate is the only command for keys\n\n%s", usage)
		return 2
	}
	return process.Main(ctx, environ, args[1:], stdout, stderr, func(ctx context.Context, cfg keysConfig) (err error) {
		if cfg.DataDir == "" {
			if cfg.DataDir, err = single.UserDataDir(); err != nil {
				return err
			}
		}
		r, err := single.RotateKeys(ctx, cfg.Config, cfg.DryRun)
		if err != nil {
			return err
		}
		if cfg.JSON {
			if err := json.NewEncoder(stdout).Encode(r); err != nil {
				return err
			}
		}
		done := "sealed anew"
		if cfg.DryRun {
			done = "to seal anew"
		}
		for _, k := range r.Kinds {
			if !cfg.JSON {
				fmt.Fprintf(stdout, "%-15s %d, %d %s\n", k.Kind, k.Seen, k.Changed, done)
			}
		}
		if n := r.Failed(); n > 0 {
			return fmt.Errorf("%d values were sealed with a key that is not among TURUMBA_MASTER_KEY and TURUMBA_MASTER_KEY_PREVIOUS, or are damaged", n)
		}
		return nil
	})
}
