//! Plots as SVG text, to be put into a page as they are.

// Plots are for people; nothing is booked from them.
#![allow(clippy::float_arithmetic)]

use std::ops::Range;

use anyhow::anyhow;
use plotters::coord::CoordTranslate;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Pixels of a plot from left to right.
const WIDTH: u32 = 900;
/// Pixels of a plot of lines from top to bottom.
const LINES_HEIGHT: u32 = 420;
/// Pixels of one bar with the space around it.
const BAR_HEIGHT: u32 = 26;
/// Pixels above and below the bars: caption, legend and axis.
const BARS_MARGIN: u32 = 120;
/// Pixels for the names of bars.
const NAMES_WIDTH: u32 = 300;
/// Pixels for the figures of an axis.
const FIGURES_WIDTH: u32 = 70;
/// How the text looks.
const FONT: (&str, u32) = ("sans-serif", 14);
/// How a caption looks.
const CAPTION: (&str, u32) = ("sans-serif", 18);
/// Colours that are told apart with any sight (Okabe and Ito), in their order.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(110, 110, 110),
];

/// A bar of parts, one behind the other.
pub struct Bar {
    /// What it is of.
    pub name: String,
    /// The names and lengths of its parts.
    pub parts: Vec<(String, f64)>,
}

/// A line through points.
pub struct Line {
    /// What it is of.
    pub name: String,
    /// From left to right; all above zero.
    pub points: Vec<(f64, f64)>,
}

/// How an axis is labelled.
pub struct Axis<'a> {
    /// What it shows.
    pub name: &'a str,
    /// A figure on it.
    pub figure: &'a dyn Fn(f64) -> String,
}

fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

/// Bars below one another, each with its figure.
pub fn bars(caption: &str, axis: &Axis<'_>, bars: &[Bar]) -> anyhow::Result<String> {
    let length = |bar: &Bar| bar.parts.iter().map(|(_, part)| part).sum::<f64>();
    let longest = bars.iter().map(length).fold(f64::MIN_POSITIVE, f64::max);
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in bars.iter().flat_map(|bar| &bar.parts) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    // Room on the right for figures and names.
    let across = longest * if names.len() > 1 { 1.3 } else { 1.1 };
    let mut svg = String::new();
    let height = BAR_HEIGHT * bars.len() as u32 + BARS_MARGIN;
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(undrawn)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(caption, CAPTION)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(NAMES_WIDTH)
            // The first bar on top.
            .build_cartesian_2d(0.0..across, (bars.len() as f64)..0.0)
            .map_err(undrawn)?;
        let told = |figure: &f64| (axis.figure)(*figure);
        let mut mesh = chart.configure_mesh();
        // Names are set beside the bars below: an axis of numbers knows none.
        mesh.disable_y_mesh().disable_y_axis().y_labels(0);
        mesh.light_line_style(TRANSPARENT).label_style(FONT);
        mesh.x_desc(axis.name).x_label_formatter(&told);
        mesh.draw().map_err(undrawn)?;
        for (place, name) in names.iter().enumerate() {
            let drawn = chart.draw_series(part(bars, name, colour(place))).map_err(undrawn)?;
            if names.len() > 1 {
                drawn.label(*name).legend(move |at| swatch(at, place));
            }
        }
        let beside = |side| FONT.into_text_style(&area).pos(Pos::new(side, VPos::Center));
        for (row, bar) in bars.iter().enumerate() {
            let (end, middle) = chart.backend_coord(&(length(bar), row as f64 + 0.5));
            let (begin, _) = chart.backend_coord(&(0.0, 0.0));
            let name = Text::new(bar.name.as_str(), (begin - 8, middle), beside(HPos::Right));
            area.draw(&name).map_err(undrawn)?;
            let figure = (axis.figure)(length(bar));
            area.draw(&Text::new(figure, (end + 6, middle), beside(HPos::Left))).map_err(undrawn)?;
        }
        if names.len() > 1 {
            legend(&mut chart).map_err(undrawn)?;
        }
        area.present().map_err(undrawn)?;
    }
    Ok(svg)
}

/// One part of each bar that has it.
fn part<'a>(
    bars: &'a [Bar],
    name: &'a str,
    colour: RGBColor,
) -> impl Iterator<Item = Rectangle<(f64, f64)>> + 'a {
    bars.iter().enumerate().filter_map(move |(row, bar)| {
        let before = bar.parts.iter().take_while(|(part, _)| part != name);
        let from = before.map(|(_, part)| part).sum::<f64>();
        let (_, part) = bar.parts.iter().find(|(part, _)| part == name)?;
        let (top, bottom) = (row as f64 + 0.15, row as f64 + 0.85);
        Some(Rectangle::new([(from, top), (from + part, bottom)], colour.filled()))
    })
}

/// Lines over two logarithmic axes.
pub fn lines(caption: &str, [across, up]: [&Axis<'_>; 2], lines: &[Line]) -> anyhow::Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let spread = |values: &mut dyn Iterator<Item = f64>, room: f64| -> Range<f64> {
        let (low, high) = values
            .fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| (low.min(value), high.max(value)));
        // Room for the names below.
        if low > high { 1.0..10.0 } else { low / room..high * 1.1 }
    };
    let (wide, high) =
        (spread(&mut points().map(|(x, _)| *x), 1.1), spread(&mut points().map(|(_, y)| *y), 2.0));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, LINES_HEIGHT)).into_drawing_area();
        area.fill(&WHITE).map_err(undrawn)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(caption, CAPTION)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(FIGURES_WIDTH)
            .build_cartesian_2d(wide.log_scale(), high.log_scale())
            .map_err(undrawn)?;
        let told_across = |figure: &f64| (across.figure)(*figure);
        let told_up = |figure: &f64| (up.figure)(*figure);
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT).label_style(FONT).x_desc(across.name).y_desc(up.name);
        mesh.x_label_formatter(&told_across).y_label_formatter(&told_up);
        mesh.draw().map_err(undrawn)?;
        for (place, line) in lines.iter().enumerate() {
            let stroke = ShapeStyle::from(colour(place)).stroke_width(2);
            let drawn = LineSeries::new(line.points.iter().copied(), stroke).point_size(2);
            chart
                .draw_series(drawn)
                .map_err(undrawn)?
                .label(line.name.clone())
                .legend(move |at| swatch(at, place));
        }
        legend(&mut chart).map_err(undrawn)?;
        area.present().map_err(undrawn)?;
    }
    Ok(svg)
}

/// The names of colours, where plots are mostly empty.
fn legend<'a, 'b: 'a, C: CoordTranslate>(
    chart: &'a mut ChartContext<'b, SVGBackend<'b>, C>,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let mut names = chart.configure_series_labels();
    names.position(SeriesLabelPosition::LowerRight).label_font(FONT);
    names.background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.2)).draw()
}

/// The patch of colour beside a name.
fn swatch((x, y): (i32, i32), place: usize) -> Rectangle<(i32, i32)> {
    Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour(place).filled())
}

fn undrawn<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("a plot cannot be drawn: {error}")
}
