package pg

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// poolFigure is one figure of a pool.
type poolFigure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	state string // label; empty for none
	value func(*pgxpool.Stat) float64
}

// Collector shows how the connections of db are used. name tells pools of one process
// apart.
func Collector(name string, db *DB) prometheus.Collector {
	labels := prometheus.Labels{"pool": name}
	connections := prometheus.NewDesc("turumba_db_connections", "Connections of a pool to PostgreSQL, by state; max is the most it may have.", []string{"state"}, labels)
	plain := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, labels) }
	return &poolCollector{db: db, figures: []poolFigure{
		{connections, prometheus.GaugeValue, "busy", func(s *pgxpool.Stat) float64 { return float64(s.AcquiredConns()) }},
		{connections, prometheus.GaugeValue, "idle", func(s *pgxpool.Stat) float64 { return float64(s.IdleConns()) }},
		{connections, prometheus.GaugeValue, "max", func(s *pgxpool.Stat) float64 { return float64(s.MaxConns()) }},
		{plain("turumba_db_acquires_total", "Connections taken from a pool."), prometheus.CounterValue, "", func(s *pgxpool.Stat) float64 { return float64(s.AcquireCount()) }},
		{plain("turumba_db_waits_total", "Times that somebody had to wait for a connection of a pool."), prometheus.CounterValue, "", func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) }},
		{plain("turumba_db_wait_seconds_total", "Time spent waiting for connections of a pool."), prometheus.CounterValue, "", func(s *pgxpool.Stat) float64 { return s.EmptyAcquireWaitTime().Seconds() }},
	}}
}

type poolCollector struct {
	db      *DB
	figures []poolFigure
}

// Describe implements prometheus.Collector.
func (c *poolCollector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *poolCollector) Collect(out chan<- prometheus.Metric) {
	stat := c.db.pool.Stat()
	for _, f := range c.figures {
		if f.state == "" {
			out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(stat))
			continue
		}
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(stat), f.state)
	}
}
