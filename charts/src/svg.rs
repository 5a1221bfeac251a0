//! Drawings: SVG that scales, says to a screen reader what it shows, and takes its colours from the
//! page around it, so that it reads on light and on dark. No font is loaded, no file written.

use anyhow::Result;
use maud::{Markup, PreEscaped, html};
use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width of a drawing in its own units.
pub const WIDTH: u32 = 400;
/// Size of text.
pub const TEXT: f64 = 13.0;
/// Size of text that stands under other text.
pub const SMALL: f64 = 12.0;
/// Fonts that are there already.
const FONTS: &str = "system-ui, sans-serif";

/// The colour of text. Like the other two a stand-in: plotters cannot name colours of the page.
pub const INK: RGBColor = RGBColor(1, 0, 0);
/// The colour of the first series: `--first` of the page.
pub const FIRST: RGBColor = RGBColor(2, 0, 0);
/// The colour of the second series: `--second` of the page.
pub const SECOND: RGBColor = RGBColor(3, 0, 0);
/// What the stand-ins are replaced by. The colours after the commas are for a page that defines
/// none; they keep 3 : 1 against white and against black.
const PAINTS: [(&str, &str); 3] = [
    ("\"#010000\"", "\"currentColor\""),
    ("\"#020000\"", "\"var(--first, #3a86c0)\""),
    ("\"#030000\"", "\"var(--second, #808b96)\""),
];

/// What is drawn on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws, gives the drawing its name, and lets it scale: the element that plotters opens has a
/// fixed width and no role, so it is replaced.
///
/// Fails only where plotters cannot draw.
pub fn svg(
    title: &str,
    description: &str,
    height: u32,
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<Markup> {
    let mut drawn = String::new();
    let area = SVGBackend::with_string(&mut drawn, (WIDTH, height)).into_drawing_area();
    draw(&area)?;
    area.present()?;
    drop(area);
    let shapes = drawn.split_once('>').map_or("", |(_, shapes)| shapes);
    let mut shapes = shapes.replace("</svg>", "");
    for (stand_in, paint) in PAINTS {
        shapes = shapes.replace(stand_in, paint);
    }
    Ok(html! {
        svg role="img" viewBox={ "0 0 " (WIDTH) " " (height) } {
            title { (title) }
            desc { (description) }
            // made by plotters, which escapes our names
            (PreEscaped(shapes))
        }
    })
}

/// Text of a size.
pub fn text_style(size: f64) -> TextStyle<'static> {
    // plotters writes font sizes divided by this
    const SHRUNK: f64 = 1.24;
    TextStyle::from((FONTS, size * SHRUNK).into_font()).color(&INK)
}

/// Text, centred on a height.
pub fn write(area: &Area<'_>, text: &str, at: (i32, i32), anchor: HPos, size: f64) -> Result<()> {
    let style = text_style(size).pos(Pos::new(anchor, VPos::Center));
    Ok(area.draw_text(text, &style, at)?)
}

/// A filled rectangle between two x and two y.
pub fn bar(area: &Area<'_>, x: (i32, i32), y: (i32, i32), paint: RGBColor) -> Result<()> {
    Ok(area.draw(&Rectangle::new([(x.0, y.0), (x.1, y.1)], paint.filled()))?)
}

/// The line at which bars begin.
pub fn axis(area: &Area<'_>, x: i32, y: (i32, i32)) -> Result<()> {
    Ok(area.draw(&PathElement::new([(x, y.0), (x, y.1)], INK.mix(0.6)))?)
}

/// Gives the axes of a chart the colours of the page, and their labels a size.
pub fn style(
    mesh: &mut MeshStyle<'_, '_, RangedCoordf64, RangedCoordf64, SVGBackend<'_>>,
    size: f64,
) {
    mesh.light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.14))
        .axis_style(INK.mix(0.6))
        .label_style(text_style(size))
        .axis_desc_style(text_style(size));
}
