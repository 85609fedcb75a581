package main

import (
	"context"
	"fmt"
	"io"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/kit/telemetry"
)

func up(ctx context.Context, environ, args []string, stdout, stderr io.Writer) int {
	return process.Main(ctx, environ, args, stdout, stderr, func(ctx context.Context, cfg single.Config) (err error) {
		if cfg.DataDir == "" {
			if cfg.DataDir, err = single.UserDataDir(); err != nil {
				return err
			}
		}
		in, err := single.Start(ctx, cfg, telemetry.NewLogger(stderr, cfg.LogLevel), false)
		if err != nil {
			return err
		}
		printAddresses(stdout, in, cfg.DataDir)
		return in.Run(ctx)
	})
}

func printAddresses(w io.Writer, in *single.Instance, dataDir string) {
	fmt.Fprintf(w, "REST      %s  (documentation at %s/docs)\n", in.URL, in.URL)
	fmt.Fprintf(w, "gRPC      %s\n", in.GRPC)
	fmt.Fprintf(w, "metrics   http://%s/metrics  (for operators, with pprof, health and gRPC reflection)\n", in.Admin)
	if in.Simulator != nil {
		host, port := in.Simulator.HostPort()
		fmt.Fprintf(w, "mailbox   %s  (verification codes arrive here)\n", in.Simulator.Mailbox)
		fmt.Fprintf(w, "SMTP      %s port %d  (simulated provider: tls_mode none, allow_plaintext true)\n", host, port)
		fmt.Fprintf(w, "Twilio    %s  (simulated provider: base_url of a twilio channel)\n", in.Simulator.API)
	}
	fmt.Fprintf(w, "data      %s\n", dataDir)
	fmt.Fprintln(w, "Ctrl-C stops it.")
}
