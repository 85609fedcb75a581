package fanout

// ahead writes a stretch while the next one is read: one at a time, in order. The first
// that fails ends it.
type ahead struct {
	write chan error // the write in work; nil for none
}

// do starts a write as soon as the one before has ended well.
func (a *ahead) do(write func() error) error {
	if err := a.wait(); err != nil {
		return err
	}
	a.write = make(chan error, 1)
	go func() { a.write <- write() }()
	return nil
}

// wait is how the last write ended.
func (a *ahead) wait() error {
	if a.write == nil {
		return nil
	}
	err := <-a.write
	a.write = nil
	return err
}
